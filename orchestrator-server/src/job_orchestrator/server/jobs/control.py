"""Control of the queue: pauses of services and users, and changes of queued jobs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from job_orchestrator.common.messages.service import PauseList
from job_orchestrator.server.errors import ServiceNotFound
from job_orchestrator.server.jobs.submission.form import check_priority
from job_orchestrator.server.model import Job, Principal, Service
from job_orchestrator.server.scheduling.rules import Rules
from job_orchestrator.server.store.base import JobStore


@dataclass(frozen=True)
class QueueControl:
    """Pauses services and users, and changes queued jobs. ``wake`` wakes the dispatcher.

    A pause is recorded before it takes effect, so that it survives a restart. Running jobs go on.
    """

    store: JobStore
    services: Mapping[str, Service]
    rules: Rules
    wake: Callable[[], None]

    async def load(self) -> None:
        """Load the pauses that a previous run of the server has recorded."""
        self.rules.pauses = await self.store.queue.pauses()

    def pauses(self) -> PauseList:
        """Return all that is paused."""
        paused = self.rules.pauses
        return PauseList(services=sorted(paused.services), users=sorted(paused.users))

    async def pause(self, *, service: str | None = None, user_id: int | None = None) -> PauseList:
        """Start no more jobs of a service, or of a user. Raises ``ServiceNotFound``."""
        self._check(service)
        await self.store.queue.pause(service=service, user_id=user_id)
        self.rules.pauses = await self.store.queue.pauses()
        return self.pauses()

    async def resume(self, *, service: str | None = None, user_id: int | None = None) -> PauseList:
        """Start the jobs of a service, or of a user, again. Raises ``ServiceNotFound``."""
        self._check(service)
        await self.store.queue.resume(service=service, user_id=user_id)
        self.rules.pauses = await self.store.queue.pauses()
        self.wake()
        return self.pauses()

    async def change(
        self, job_id: int, principal: Principal, *, held: bool | None, priority: int | None
    ) -> Job:
        """Hold or release a queued job, or change its priority; None leaves it as it is.

        Raises ``JobNotFound``, ``JobNotQueued``, ``InvalidSubmission``.
        """
        if priority is not None and not principal.is_admin:
            job = await self.store.get(job_id)
            check_priority(priority, self.rules.max_priority(job.user_id))
        return await self.store.change_queued(job_id, held=held, priority=priority)

    def _check(self, service: str | None) -> None:
        # A service that is not configured now may be resumed, or it would stay paused for ever.
        known = {*self.services, *self.rules.pauses.services}
        if service is not None and service not in known:
            raise ServiceNotFound(f"There is no service {service[:100]!r}")
