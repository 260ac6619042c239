"""What portals and administrators look at: lists, a job with its past, services, clients."""

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
from job_orchestrator.server.clients.registry import Client, ClientPool
from job_orchestrator.server.jobs.statistics import Recent
from job_orchestrator.server.jobs.views import minute_of, step_of, view_of
from job_orchestrator.server.model import Job, Service
from job_orchestrator.server.store.base import NEWEST, JobFilter
from job_orchestrator.server.store.sqlite.jobs import JobStore


@dataclass(frozen=True)
class Overview:
    """The views, on what they need; ``now`` gives seconds since the epoch."""

    store: JobStore
    pool: ClientPool
    services: Mapping[str, Service]
    recent: Recent
    now: Callable[[], float] = time.time

    async def jobs(self, wanted: JobFilter, before: int = NEWEST, limit: int = 50) -> JobPage:
        """A page of jobs, the newest first."""
        jobs = await self.store.lists.page(wanted, before, limit + 1)
        more = len(jobs) > limit
        return JobPage(
            jobs=[view_of(job) for job in jobs[:limit]],
            next=str(jobs[limit - 1].id) if more else None,
        )

    async def job(self, job_id: int) -> JobDetail:
        """A job with its history. Raises ``JobNotFound``."""
        job = await self.store.get(job_id)
        changes = await self.store.lists.history(job)
        until = [*(change.at for change in changes[1:]), self.now()]
        return JobDetail(
            **msgspec.structs.asdict(view_of(job)),
            history=[step_of(change, end) for change, end in zip(changes, until, strict=True)],
            queue=await self._place(job) if job.status is JobStatus.QUEUED else None,
        )

    async def all_services(self) -> ServiceList:
        """The services and their use."""
        counts = await self.store.lists.unended()
        return ServiceList(services=[self._service(s, counts) for s in self.services.values()])

    def all_clients(self) -> ClientList:
        """The clients, as they last showed themselves."""
        return ClientList(clients=[self._client(client) for client in self.pool])

    def stats(self) -> Stats:
        """The last hour, minute by minute."""
        return Stats(minutes=[minute_of(minute) for minute in self.recent.minutes()])

    async def _place(self, job: Job) -> QueuePosition:
        """The estimate supposes that the user gets all that the limits allow, and no more."""
        ahead = await self.store.ahead(job)
        service, run_s = self.services.get(job.service), self.recent.run_s(job.service)
        wait_s = None
        if service is not None and run_s is not None:
            at_once = min(service.runs_per_user, service.max_runs)
            wait_s = round(run_s * (ahead + 1) / at_once, 1)
        return QueuePosition(ahead=ahead, estimated_wait_s=wait_s)

    def _service(
        self, service: Service, counts: Mapping[tuple[str, JobStatus], int]
    ) -> ServiceView:
        problems = self.pool.problems(service)
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
            clients=[urls.upload for urls in service.clients],
        )

    def _client(self, client: Client) -> ComputeClient:
        # What a client said before it went is no news.
        told = client.state != "unreachable"
        load = client.load if told else None
        return ComputeClient(
            url=client.url,
            services=[
                service.name
                for service in self.services.values()
                if any(urls.upload == client.url for urls in service.clients)
            ],
            state=client.state,
            problem=client.problem,
            slots=client.slots if told else None,
            running=load.running if load else None,
            waiting=load.waiting if load else None,
            cpu=client.cpu if told else None,
            memory=load.memory if load else None,
            jobs=len(client.jobs),
            version=client.version or None,
            draining=client.draining,
        )
