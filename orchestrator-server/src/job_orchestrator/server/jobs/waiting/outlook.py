"""Outlook of a queued job: why it waits, and when it is expected to start."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from job_orchestrator.common.runtime.clock import steady_time
from job_orchestrator.server.jobs.statistics import JobStatistics
from job_orchestrator.server.jobs.waiting.estimate import (
    ActiveJob,
    Capacity,
    expected_wait_s,
    jobs_first,
    wait_quantiles_s,
)
from job_orchestrator.server.jobs.waiting.forecasts import Forecast, Forecasts
from job_orchestrator.server.jobs.waiting.hindrances import Hindrances
from job_orchestrator.server.model import Job
from job_orchestrator.server.store.base import JobStore
from job_orchestrator.server.store.queue import WaitingUser


@dataclass(frozen=True)
class Outlook:
    """The outlook of a queued job.

    ``hindrance`` says what keeps it from its start, empty if nothing does. ``ahead`` counts the
    jobs of its user that start first, ``others`` those of other users. ``wait_s`` is an estimate,
    None if it is not known.
    """

    ahead: int
    hindrance: str
    others: int = 0
    wait_s: float | None = None
    forecast: Forecast | None = None

    @property
    def reason(self) -> str:
        """Reason why the job waits, in the words of users."""
        if self.hindrance:
            return self.hindrance
        if self.ahead:
            return f"{self.ahead} of this user's jobs {'is' if self.ahead == 1 else 'are'} ahead"
        if self.others:
            jobs = "job of another user is" if self.others == 1 else "jobs of other users are"
            return f"{self.others} {jobs} ahead"
        return "It is next in line"


@dataclass(frozen=True)
class Outlooks:
    """Finds the outlooks of queued jobs. ``now`` returns seconds since the epoch."""

    store: JobStore
    hindrances: Hindrances
    statistics: JobStatistics
    forecasts: Forecasts
    now: Callable[[], float] = steady_time

    async def of(self, job: Job, *, details: bool) -> Outlook:
        """Return the outlook of a queued job."""
        ahead = await self.store.queue.ahead(job)
        hindrance = await self.hindrance(job, details=details)
        stopped = self.hindrances.obstacle(job, details=details) or self.hindrances.on_hold(job)
        stopped = self.hindrances.waits_for(job) or stopped
        runs_s = self.statistics.runs_s(job.service)
        service = self.hindrances.services.get(job.service)
        if stopped or service is None or not runs_s:
            return Outlook(ahead, hindrance)
        run_s = self.statistics.remaining_s(job.service) or 0.0
        others = jobs_first(*await self._waiting_users(job), ahead, run_s)
        active, now = self._active(job, run_s), self.now()
        clients = self.hindrances.clients.working(service)
        slots = [client.slots for client in clients if client.slots is not None]
        capacity = Capacity(
            sum(slots) if len(slots) == len(clients) else None,
            service.max_runs,
            self.hindrances.rules.limits(service).ceiling(job.user_id),
        )
        least_s = max(job.not_before - now, await self._rate_wait_s(job))
        wait_s = max(expected_wait_s(ahead, others, run_s, capacity, active), least_s)
        half_s, most_s = wait_quantiles_s(ahead, others, runs_s, capacity, active)
        forecast = Forecast(now + max(half_s, least_s), now + max(most_s, least_s))
        self.forecasts.given(job, forecast)
        return Outlook(ahead, hindrance, others, round(wait_s, 1), forecast)

    async def hindrance(self, job: Job, *, details: bool) -> str:
        """Say why a queued job can't start now; empty if it can."""
        if found := self.hindrances.of(job, details=details):
            return found
        wait_s = await self._rate_wait_s(job)
        if wait_s <= 0:
            return ""
        rate = self.hindrances.rules.start_rate(job.user_id)
        return f"This user may start {rate}; the next one in {math.ceil(wait_s)} s"

    async def _rate_wait_s(self, job: Job) -> float:
        """Return how long the rate keeps a queued job from its start."""
        rate = self.hindrances.rules.start_rate(job.user_id)
        if rate is None or job.attempt > 0:
            return 0.0
        return rate.wait_s(await self.store.queue.tokens(job.user_id, rate))

    def _active(self, job: Job, run_s: float) -> Sequence[ActiveJob]:
        """Return the active jobs on the clients of a queued job's service."""
        service, now, found = self.hindrances.services[job.service], self.now(), []
        clients = self.hindrances.clients.working(service)
        for other in (other for client in clients for other in client.jobs.values()):
            elapsed_s = max(now - other.started_at, 0.0) if other.started_at is not None else 0.0
            left_s = self.statistics.remaining_s(other.service, elapsed_s)
            found.append(
                ActiveJob(
                    run_s if left_s is None else left_s,
                    runs=other.started_at is not None,
                    of_user=other.user_id == job.user_id,
                    of_service=other.service == job.service,
                    elapsed_s=elapsed_s,
                )
            )
        return found

    async def _waiting_users(self, job: Job) -> tuple[WaitingUser, Sequence[WaitingUser]]:
        """Return the user of a queued job, and the users who wait for the same service."""
        waiting = await self.store.queue.waiting_users(job.service)
        own = (user for user in waiting if user.user_id == job.user_id)
        return next(own, WaitingUser(job.user_id, 1, active=0, served=0, head=job.id)), waiting
