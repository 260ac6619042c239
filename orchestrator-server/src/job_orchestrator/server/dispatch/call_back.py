"""Call back: returns jobs that wait at clients for a slot to the queue, when others go first."""

import logging
from collections.abc import Collection, Sequence

from job_orchestrator.common.runtime.fault_injection import Point, reach
from job_orchestrator.common.runtime.loops import TaskOwner
from job_orchestrator.common.status import JobStatus, TransitionRefused
from job_orchestrator.server.clients.registry import ClientRegistry
from job_orchestrator.server.errors import ClientError
from job_orchestrator.server.model import Job, Service
from job_orchestrator.server.scheduling.look_ahead import outranked, overtaken
from job_orchestrator.server.scheduling.rules import Rules
from job_orchestrator.server.store.base import JobStore
from job_orchestrator.server.store.queue import Claim

logger = logging.getLogger(__name__)

MAX_CONCURRENT = 100
"""Jobs that are called back at the same time."""

OVERTAKEN = "Another job goes first"


class CallBack:
    """Calls back jobs that their clients have not started.

    A job that is called back spends no attempt. If it has started in the meantime, it goes on.
    """

    def __init__(self, store: JobStore, registry: ClientRegistry, rules: Rules) -> None:
        self._store = store
        self._registry = registry
        self._rules = rules
        self._recalls = TaskOwner("call back", limit=MAX_CONCURRENT)
        self._recalling: set[int] = set()

    def replaceable(self, service: Service) -> list[Job]:
        """Return the jobs of ``service`` that wait at clients for a slot, earliest claim first."""
        found = []
        for client in self._registry.of_service(service):
            beyond = client.occupied - (client.slots or 0)
            if beyond <= 0 or not client.transport.can_recall:
                continue
            waiting = [
                job
                for job in client.jobs.values()
                if job.service == service.name
                and job.status is JobStatus.SUBMITTED
                and job.id not in self._recalling
            ]
            waiting.sort(key=lambda job: (job.changed_at, job.id))
            found += waiting[-beyond:]
        return sorted(found, key=lambda job: (job.changed_at, job.id))

    def overtaken(
        self, service: Service, not_started: Sequence[Job], claim: Claim, arrivals: Sequence[Job]
    ) -> None:
        """Call back those jobs of ``not_started`` that should give their place to queued jobs."""
        active = [
            job
            for client in self._registry.of_service(service)
            for job in client.jobs.values()
            if job.service == service.name
        ]
        claimed = {job.id for job in claim.jobs}
        queued = [job for job in arrivals if job.service == service.name and job.id not in claimed]
        jobs = overtaken(
            self._rules.policy(service),
            self._rules.limits(service),
            active,
            not_started,
            claim.waiting,
            claim.held_usage_s,
            claim.everywhere,
        )
        for job in {job.id: job for job in [*jobs, *outranked(queued, not_started)]}.values():
            self._begin(job)

    def misplaced(self, service: Service, reserved: Collection[str]) -> None:
        """Call back jobs that wait at busy clients while others have free slots.

        Slots of ``reserved`` clients do not count.
        """
        free = sum(
            max((client.slots or 0) - client.occupied, 0)
            for client in self._registry.usable(service)
            if client.name not in reserved
        )
        if free:
            for job in self.replaceable(service)[:free]:
                self._begin(job)

    async def close(self) -> None:
        """Cancel what is under way."""
        await self._recalls.close()

    def _begin(self, job: Job) -> None:
        if self._recalls.free:
            self._recalling.add(job.id)
            self._recalls.spawn(self._recall(job), f"job {job.id}")

    async def _recall(self, job: Job) -> None:
        client = self._registry.get(job.client)
        try:
            if client is None or not await client.transport.recall(job.key):
                return
            reach(Point.SERVER_RECALLED)
            await self._store.requeue(
                job, OVERTAKEN, delay_s=0.0, max_attempts=1, counts=False, may_still_run=False
            )
            logger.info("Job %d was called back from %s", job.id, client.name)
        except (ClientError, TransitionRefused) as error:
            logger.info("Job %d is not called back: %s", job.id, error)
        finally:
            self._recalling.discard(job.id)
