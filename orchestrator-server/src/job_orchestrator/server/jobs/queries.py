"""Read-side queries: jobs with their state, history and queue position, services, clients."""

import asyncio
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import msgspec

from job_orchestrator.common.messages.explanation import LimitUse
from job_orchestrator.common.messages.jobs import Job as JobView
from job_orchestrator.common.messages.jobs import JobDetail, JobPage
from job_orchestrator.common.messages.service import (
    ClientList,
    ComputeClient,
    PersonalLimits,
    ServiceList,
    Stats,
)
from job_orchestrator.common.messages.service import Service as ServiceView
from job_orchestrator.common.runtime.clock import steady_time
from job_orchestrator.common.status import ACTIVE_JOB, DISPATCHED_JOB, JobStatus
from job_orchestrator.server.clients.registry import Client, ClientRegistry
from job_orchestrator.server.jobs.changes import ChangeFeed
from job_orchestrator.server.jobs.reasons import TERMINATION_PENDING, reason_for, with_details
from job_orchestrator.server.jobs.statistics import JobStatistics
from job_orchestrator.server.jobs.views import (
    minute_of,
    position_of,
    seen_at_of,
    step_of,
    view_of,
    waiting_of,
)
from job_orchestrator.server.jobs.waiting.hindrances import ALL_UNUSABLE, OF_USER
from job_orchestrator.server.jobs.waiting.outlook import Outlooks
from job_orchestrator.server.model import MAX_JOB_ID, Job, JobFilter, Service
from job_orchestrator.server.scheduling.limit_use import (
    use_in_service,
    use_of_groups,
    use_of_rate,
    use_of_total,
    use_of_user,
)
from job_orchestrator.server.store.base import JobStore
from job_orchestrator.server.store.queue import MAX_AHEAD

SOME_UNUSABLE = "Not all machines of this service can be used at present"

STARTED = (JobStatus.RUNNING, JobStatus.UNKNOWN)
NOT_STARTED = (JobStatus.QUEUED, JobStatus.PROCESSING, JobStatus.SUBMITTED)


def _joined(*reasons: str) -> str:
    """Join reasons, without those that are empty or repeated."""
    return "; ".join(dict.fromkeys(reason for reason in reasons if reason))


@dataclass(frozen=True)
class JobQueries:
    """Queries about jobs, services and clients. ``now`` returns seconds since the epoch.

    With ``details``, reasons are shown as administrators see them.
    """

    store: JobStore
    feed: ChangeFeed
    clients: ClientRegistry
    services: Mapping[str, Service]
    statistics: JobStatistics
    outlooks: Outlooks
    now: Callable[[], float] = steady_time

    async def jobs(
        self, wanted: JobFilter, before: int = MAX_JOB_ID, limit: int = 50, *, details: bool
    ) -> JobPage:
        """Return a page of jobs, newest first."""
        jobs = await self.store.lists.page(wanted, before, limit + 1)
        more = len(jobs) > limit
        return JobPage(
            jobs=[self.view(job, details=details) for job in jobs[:limit]],
            next=str(jobs[limit - 1].id) if more else None,
        )

    async def job(self, job_id: int, *, details: bool) -> JobDetail:
        """Return a job with its history. Raises ``JobNotFound``."""
        job = await self.store.get(job_id)
        changes = await self.store.lists.history(job)
        until = [*(change.at for change in changes[1:]), self.now()]
        steps = zip(changes, until, strict=True)
        service = self.services.get(job.service)
        fields = msgspec.structs.asdict(self.view(job, details=details))
        queue = waiting = None
        if job.status is JobStatus.QUEUED:
            outlook = await self.outlooks.of(job, details=details)
            queue, waiting = position_of(outlook), waiting_of(outlook)
        return JobDetail(
            **fields,
            history=[step_of(change, end, details=details) for change, end in steps],
            queue=queue,
            max_attempts=service.max_attempts if service else None,
            outputs=list(job.outputs),
            results=job.results,
            waiting=waiting,
            after=list(job.after_success),
            afterany=list(job.after_end),
        )

    def view(self, job: Job, *, details: bool) -> JobView:
        """Return the message that shows a job, with the reason why a queued one can't start."""
        view = view_of(job, details=details)
        if self._waits_for_termination(job):
            message = _joined(view.message, TERMINATION_PENDING)
            return msgspec.structs.replace(view, message=message)
        if job.status is not JobStatus.QUEUED:
            return view
        message = _joined(self.outlooks.hindrances.of(job, details=details), view.message)
        return msgspec.structs.replace(view, message=message)

    async def wait_for_end(self, job_id: int, timeout_s: float) -> Job:
        """Return a job when it has ended, or as it is after ``timeout_s``.

        Raises ``JobNotFound``.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        with self.feed.following(job_id) as changes:
            job = await self.store.get(job_id)
            while not job.status.has_ended:
                changed = await changes.wait(deadline - loop.time())
                if changed is None:
                    return job
                job = changed
            return job

    async def explain(self, job: Job, *, details: bool) -> str:
        """Return the reason for a job's state, with the queue position of a queued one."""
        reason = reason_for(job.message, details=details)
        if self._waits_for_termination(job):
            return _joined(reason, TERMINATION_PENDING)
        if job.status is not JobStatus.QUEUED:
            return reason
        ahead = await self.store.queue.ahead(job)
        count = f"{MAX_AHEAD} or more" if ahead == MAX_AHEAD else str(ahead)
        hindrance = await self.outlooks.hindrance(job, details=details)
        position = "" if OF_USER in hindrance or job.open_dependencies else "Next in line"
        if ahead and not job.open_dependencies:
            verb = "is" if ahead == 1 else "are"
            position = f"{count} of this user's jobs for {job.service} {verb} ahead"
        return _joined(position, hindrance, reason)

    async def all_services(self, *, details: bool) -> ServiceList:
        """Return the services, with counts of their jobs that have not ended."""
        counts = await self.store.lists.unended()
        services = list(self.services.values())
        use: list[LimitUse] = []
        if services:
            active = self.outlooks.hindrances.active_of_users()
            limits = self.outlooks.hindrances.rules.limits(services[0])
            use += use_of_total(limits, active)
            use += use_of_groups(limits, active) if details else ()
        return ServiceList(
            services=[self._service(service, counts, details=details) for service in services],
            use=use,
        )

    async def limits_of(self, user_id: int) -> PersonalLimits:
        """Return the limits of a user over all services, and what the user has of each."""
        hindrances, rules = self.outlooks.hindrances, self.outlooks.hindrances.rules
        rate = rules.rate(user_id)
        tokens = None if rate is None else await self.store.queue.tokens(user_id, rate)
        everywhere = hindrances.active_of_users()
        use: list[LimitUse] = []
        for service in self.services.values():
            active = hindrances.active(service, user_id)
            use += use_in_service(rules.limits(service), service.name, user_id, active)
        for service in list(self.services.values())[:1]:
            use += use_of_user(rules.limits(service), user_id, everywhere)
        if rate is not None and tokens is not None:
            use.append(use_of_rate(rate, tokens))
        return PersonalLimits(
            active=everywhere[user_id],
            max_runs=rules.user_total(user_id),
            jobs_per_hour=None if rate is None else rate.per_hour,
            jobs_left=None if tokens is None else math.floor(tokens),
            paused=user_id in rules.pauses.users,
            use=use,
        )

    def all_clients(self) -> ClientList:
        """Return the clients in their last known state."""
        return ClientList(clients=[self._client(client) for client in self.clients])

    async def stats(self) -> Stats:
        """Return the statistics of the last hour, minute by minute, and the jobs that wait now."""
        minutes, waiting = list(self.statistics.minutes()), await self.store.lists.waiting()
        count = waiting.count + sum(minute.waits for minute in minutes)
        waited_s = sum(minute.waited_s for minute in minutes)
        longest_s = max(minute.longest_wait_s for minute in minutes)
        if waiting.mean_created_at is not None and waiting.first_created_at is not None:
            waited_s += waiting.count * max(self.now() - waiting.mean_created_at, 0.0)
            longest_s = max(longest_s, self.now() - waiting.first_created_at)
        return Stats(
            minutes=[minute_of(minute) for minute in minutes],
            waiting=waiting.count,
            wait_s_mean=round(waited_s / count, 3) if count else None,
            wait_s_max=round(longest_s, 3) if count else None,
        )

    def _waits_for_termination(self, job: Job) -> bool:
        """Return whether the termination of a job was requested while its client is away."""
        if not job.kill_requested or job.status not in DISPATCHED_JOB:
            return False
        client = self.clients.get(job.client)
        return job.status is JobStatus.UNKNOWN or client is None or not client.is_connected

    def _service(
        self, service: Service, counts: Mapping[tuple[str, JobStatus], int], *, details: bool
    ) -> ServiceView:
        def count(statuses: Iterable[JobStatus]) -> int:
            return sum(counts.get((service.name, status), 0) for status in statuses)

        problems = self.clients.problems(service)
        state = "ok" if not any(problems) else "down" if all(problems) else "degraded"
        problem = next((problem for problem in problems if problem), "")
        if problem:
            problem = with_details(ALL_UNUSABLE if all(problems) else SOME_UNUSABLE, problem)
        return ServiceView(
            name=service.name,
            runs_per_user=service.runs_per_user,
            max_runs=service.max_runs,
            max_attempts=service.max_attempts,
            time_limit_s=service.time_limit_s,
            policy=service.order,
            paused=service.name in self.outlooks.hindrances.rules.pauses.services,
            runs_per_user_burst=max(service.burst, service.runs_per_user),
            active=count(ACTIVE_JOB),
            queued=count([JobStatus.QUEUED]),
            state=state,
            problem=reason_for(problem, details=details),
            clients=[c.name for c in self.clients.of_service(service)] if details else [],
            running=count(STARTED),
            waiting=count(NOT_STARTED),
        )

    def _client(self, client: Client) -> ComputeClient:
        # The last report of an unreachable client is out of date.
        is_reachable = client.state != "unreachable"
        load = client.load if is_reachable else None
        return ComputeClient(
            url=client.name,
            services=[
                service.name
                for service in self.services.values()
                if client in self.clients.of_service(service)
            ],
            registered=client.registration is not None,
            drained=client.drained,
            seen_at=seen_at_of(client.registration),
            state=client.state,
            problem=client.problem or client.fault,
            slots=client.slots if is_reachable else None,
            running=load.running if load else None,
            waiting=load.waiting if load else None,
            cpu=client.cpu if is_reachable else None,
            memory=load.memory if load else None,
            jobs=len(client.jobs),
            version=client.version or None,
            draining=client.draining,
            warnings=[*client.warnings, *(load.warnings if load else ())],
            resources=load.resources if load else None,
            resources_used=client.used if load and load.resources else None,
        )
