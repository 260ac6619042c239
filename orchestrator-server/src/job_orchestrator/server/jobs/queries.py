"""Read-side queries: jobs with their state, history and queue position, services, clients."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

from job_orchestrator.common.messages import (
    ClientList,
    ComputeClient,
    JobDetail,
    JobPage,
    QueuePosition,
    ServiceList,
    Stats,
)
from job_orchestrator.common.messages import Service as ServiceView
from job_orchestrator.common.status import ACTIVE_JOB, JobStatus
from job_orchestrator.server.clients.registry import Client, ClientRegistry
from job_orchestrator.server.jobs.changes import ChangeFeed
from job_orchestrator.server.jobs.statistics import JobStatistics
from job_orchestrator.server.jobs.views import minute_of, step_of, view_of
from job_orchestrator.server.model import MAX_JOB_ID, Job, JobFilter, Service
from job_orchestrator.server.store.base import MAX_AHEAD, JobStore


@dataclass(frozen=True)
class JobQueries:
    """Queries about jobs, services and clients. ``now`` returns seconds since the epoch."""

    store: JobStore
    feed: ChangeFeed
    clients: ClientRegistry
    services: Mapping[str, Service]
    statistics: JobStatistics
    now: Callable[[], float] = time.time

    async def jobs(self, wanted: JobFilter, before: int = MAX_JOB_ID, limit: int = 50) -> JobPage:
        """Return a page of jobs, newest first."""
        jobs = await self.store.lists.page(wanted, before, limit + 1)
        more = len(jobs) > limit
        return JobPage(
            jobs=[view_of(job) for job in jobs[:limit]],
            next=str(jobs[limit - 1].id) if more else None,
        )

    async def job(self, job_id: int) -> JobDetail:
        """Return a job with its history. Raises ``JobNotFound``."""
        job = await self.store.get(job_id)
        changes = await self.store.lists.history(job)
        until = [*(change.at for change in changes[1:]), self.now()]
        return JobDetail(
            **msgspec.structs.asdict(view_of(job)),
            history=[step_of(change, end) for change, end in zip(changes, until, strict=True)],
            queue=await self._queue_position(job) if job.status is JobStatus.QUEUED else None,
        )

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

    async def explain(self, job: Job) -> str:
        """Return the reason for a job's state, as a text for the job's user."""
        if job.status is not JobStatus.QUEUED:
            return job.message
        ahead = await self.store.ahead(job)
        count = f"{MAX_AHEAD} or more" if ahead == MAX_AHEAD else str(ahead)
        reasons = [
            f"{count} of this user's jobs for {job.service} are ahead" if ahead else "Next in line"
        ]
        service = self.services.get(job.service)
        problem = self.clients.problem(service) if service else "This service is not configured now"
        reasons += [text for text in (problem, job.message) if text]
        return "; ".join(dict.fromkeys(reasons))

    async def all_services(self) -> ServiceList:
        """Return the services, with counts of their jobs that have not ended."""
        counts = await self.store.lists.unended()
        return ServiceList(services=[self._service(s, counts) for s in self.services.values()])

    def all_clients(self) -> ClientList:
        """Return the clients in their last known state."""
        return ClientList(clients=[self._client(client) for client in self.clients])

    def stats(self) -> Stats:
        """Return the statistics of the last hour, minute by minute."""
        return Stats(minutes=[minute_of(minute) for minute in self.statistics.minutes()])

    async def _queue_position(self, job: Job) -> QueuePosition:
        """Estimate the wait as if the user always has as many jobs running as the limits allow."""
        ahead = await self.store.ahead(job)
        service, run_s = self.services.get(job.service), self.statistics.run_s(job.service)
        wait_s = None
        if service is not None and run_s is not None:
            concurrent = min(service.runs_per_user, service.max_runs)
            wait_s = round(run_s * (ahead + 1) / concurrent, 1)
        return QueuePosition(ahead=ahead, estimated_wait_s=wait_s)

    def _service(
        self, service: Service, counts: Mapping[tuple[str, JobStatus], int]
    ) -> ServiceView:
        problems = self.clients.problems(service)
        state = "ok" if not any(problems) else "down" if all(problems) else "degraded"
        return ServiceView(
            name=service.name,
            runs_per_user=service.runs_per_user,
            max_runs=service.max_runs,
            max_attempts=service.max_attempts,
            time_limit_s=service.time_limit_s,
            active=sum(counts.get((service.name, status), 0) for status in ACTIVE_JOB),
            queued=counts.get((service.name, JobStatus.QUEUED), 0),
            state=state,
            problem=next((problem for problem in problems if problem), ""),
            clients=list(service.client_names),
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
                if client.name in service.client_names
            ],
            state=client.state,
            problem=client.problem,
            slots=client.slots if is_reachable else None,
            running=load.running if load else None,
            waiting=load.waiting if load else None,
            cpu=client.cpu if is_reachable else None,
            memory=load.memory if load else None,
            jobs=len(client.jobs),
            version=client.version or None,
            draining=client.draining,
        )
