"""Explanation of why a queued job waits, with all figures that the scheduler decides by."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import msgspec

from job_orchestrator.common.messages.encoding import WireTime
from job_orchestrator.common.messages.explanation import (
    ClientForJob,
    Explanation,
    LimitUse,
    UserInLine,
)
from job_orchestrator.common.runtime.clock import steady_time
from job_orchestrator.common.status import JobStatus
from job_orchestrator.server.clients.registry import Client
from job_orchestrator.server.jobs.reasons import reason_for
from job_orchestrator.server.jobs.waiting.outlook import Outlooks
from job_orchestrator.server.model import Job, Service
from job_orchestrator.server.scheduling.fitting import NO_ROOM, Fitting, time_limit_s
from job_orchestrator.server.scheduling.limit_use import (
    use_in_service,
    use_of_rate,
    use_of_service,
    use_of_total,
    use_of_user,
)
from job_orchestrator.server.scheduling.offers import Offers
from job_orchestrator.server.store.queue import (
    MAX_WAITING_JOBS,
    QueuedJob,
    Rehearsal,
    WaitingUser,
)

MAX_USERS = 100
"""Waiting users that an explanation has."""

MAX_ORDERED = 2000
"""Queued jobs that are put in order, which takes some milliseconds."""

Line = Sequence[tuple[int, int]]
"""Queued jobs in order: their users and ids."""


@dataclass(frozen=True)
class Explanations:
    """Explains why jobs wait, with the functions that claim jobs. ``now`` is since the epoch."""

    outlooks: Outlooks
    offers: Offers
    now: Callable[[], float] = steady_time

    async def of(self, job: Job) -> Explanation:
        """Explain why a job waits; one that is not queued has a reason only."""
        service = self.outlooks.hindrances.services.get(job.service)
        found = Explanation(
            id=job.id,
            status=job.status,
            service=job.service,
            user_id=job.user_id,
            at=WireTime.at(self.now()),
        )
        if job.status is not JobStatus.QUEUED:
            return _with(found, reason=reason_for(job.message, details=True))
        outlook = await self.outlooks.of(job, details=True)
        if service is None:
            return _with(found, reason=outlook.reason)
        rules = self.outlooks.hindrances.rules
        places = {each.name: self.offers.placed(each) for each in self._services()}
        fitting = self.offers.fitting()
        offered = {
            each.name: self.offers.offer(each, places[each.name], (), fitting)
            for each in self._services()
            if each.name not in rules.pauses.services or each is service
        }
        rehearsal = await self.outlooks.store.queue.rehearse(offered, job.service)
        paused = job.service in rules.pauses.services
        line = self._line(service, rehearsal)
        starts = [] if paused else _started(rehearsal)
        return _with(
            found,
            reason=outlook.reason,
            policy=service.order.value,
            starts_now=job.id in starts,
            place=next((place for place, (_, each) in enumerate(line, 1) if each == job.id), None),
            limits=await self._limits(job, service, rehearsal),
            users=self._users(service, rehearsal, line),
            waiting_users=len(rehearsal.waiting),
            clients=self._clients(job, service, places[job.service]),
        )

    def _services(self) -> Sequence[Service]:
        return list(self.outlooks.hindrances.services.values())

    def _line(self, service: Service, rehearsal: Rehearsal) -> Line:
        """Return the order of the queued jobs by the policy, as if there were no limits."""
        rules = self.outlooks.hindrances.rules
        limits = rules.limits(service).lifted()
        waiting = [replace(user, tokens=None) for user in rehearsal.waiting]
        chosen = rules.policy(service).choose(limits, 0, MAX_ORDERED, waiting)
        return _jobs_of(chosen, waiting)

    async def _limits(self, job: Job, service: Service, rehearsal: Rehearsal) -> list[LimitUse]:
        rules = self.outlooks.hindrances.rules
        limits = rules.limits(service)
        own = (user.active for user in rehearsal.waiting if user.user_id == job.user_id)
        active = next(own, self.outlooks.hindrances.active(service, job.user_id))
        found = [
            *use_in_service(limits, service.name, job.user_id, active),
            *use_of_user(limits, job.user_id, rehearsal.everywhere),
            use_of_service(limits, service.name, rehearsal.active),
            *use_of_total(limits, rehearsal.everywhere),
        ]
        if (rate := rules.start_rate(job.user_id)) is not None:
            found.append(
                use_of_rate(rate, await self.outlooks.store.queue.tokens(job.user_id, rate))
            )
        return found

    def _users(self, service: Service, rehearsal: Rehearsal, line: Line) -> list[UserInLine]:
        limits = self.outlooks.hindrances.rules.limits(service)
        weights = sum(limits.terms(user.user_id).weight for user in rehearsal.waiting)
        places: dict[int, int] = {}
        for place, (user_id, _) in enumerate(line, 1):
            places.setdefault(user_id, place)
        last = MAX_ORDERED + 1
        in_order = sorted(
            rehearsal.waiting, key=lambda user: (places.get(user.user_id, last), user.head)
        )
        return [
            UserInLine(
                user_id=user.user_id,
                weight=limits.terms(user.user_id).weight,
                share=round(limits.terms(user.user_id).weight / weights, 4),
                usage_s=round(user.usage_s, 1),
                active=user.active,
                queued=user.queued,
                place=places.get(user.user_id),
                next=user.next[0].id if user.next else None,
                jobs_left=None if user.tokens is None else max(int(user.tokens), 0),
                paused=user.user_id in limits.paused,
            )
            for user in in_order[:MAX_USERS]
        ]

    def _clients(self, job: Job, service: Service, places: Sequence[str]) -> list[ClientForJob]:
        registry = self.outlooks.hindrances.clients
        usable = {client.name for client in registry.usable(service)}
        # Another one than the rehearsal has: that one has placed jobs.
        fitting = self.offers.fitting()
        fitting.offer(places)
        kept = {each.client: each.job for each in fitting.reservations.values()}
        problems = zip(registry.of_service(service), registry.problems(service), strict=True)
        return [
            self._client(
                client,
                kept.get(client.name),
                problem or _obstacle(client, job, service, fitting, usable),
            )
            for client, problem in problems
        ]

    def _client(self, client: Client, kept_for: int | None, obstacle: str) -> ClientForJob:
        free = None if client.slots is None else max(client.slots - client.occupied, 0)
        return ClientForJob(
            url=client.name,
            state=client.state,
            slots=client.slots,
            free=free,
            resources=client.offer or None,
            resources_free=client.offer.less(client.used) if client.offer else None,
            kept_for=kept_for,
            obstacle=obstacle,
        )


def _obstacle(
    client: Client, job: Job, service: Service, fitting: Fitting, usable: set[str]
) -> str:
    """Say why a client without a known problem can't take a job now; empty if it can."""
    if client.name not in usable:
        if not client.is_connected:
            return "It has not been reached yet"
        return "It has failed, and is tried again soon with one job"
    if job.wanted and not client.offer.hold(job.wanted):
        return f"It has {client.offer}, and the job asks for {job.wanted}"
    queued = QueuedJob(job.id, job.priority, job.created_at, job.time_limit_s, job.wanted)
    obstacle = fitting.obstacle(client.name, queued, time_limit_s(queued, service))
    if obstacle == NO_ROOM:
        return f"Of its resources, {client.offer.less(client.used)} are free"
    return obstacle


def _started(rehearsal: Rehearsal) -> set[int]:
    """Return the jobs that the decision starts."""
    named = {start.job for start in rehearsal.starts if start.job is not None}
    chosen = [start.user_id for start in rehearsal.starts if start.job is None]
    return named | {job for _, job in _jobs_of(chosen, rehearsal.waiting)}


def _jobs_of(chosen: Sequence[int], waiting: Sequence[WaitingUser]) -> Line:
    """Return the jobs that a choice of users starts: of each user the first in the queue."""
    left = {user.user_id: iter(user.next[:MAX_WAITING_JOBS]) for user in waiting}
    jobs = ((user_id, next(left[user_id], None)) for user_id in chosen)
    return [(user_id, job.id) for user_id, job in jobs if job is not None]


def _with(found: Explanation, **fields: object) -> Explanation:
    return msgspec.structs.replace(found, **fields)
