"""Estimate of when a queued job starts, from the active jobs and the limits. Pure functions."""

import heapq
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from job_orchestrator.server.store.queue import WaitingUser

MAX_FOLLOWED = 1000
"""Queued jobs whose starts are estimated one by one, which takes a microsecond for each."""

MAX_FOLLOWED_PER_TRIAL = 200
MIN_TRIALS, MAX_TRIALS, MAX_STEPS = 10, 60, 6000
"""Trials of ``wait_quantiles_s``, and the jobs of all trials together: some milliseconds."""

MIN_RUN_S = 0.001


@dataclass(frozen=True)
class ActiveJob:
    """An active job. ``left_s`` is its expected run time from now, or from its start if it waits.

    ``elapsed_s`` is how long it has run. ``of_user`` and ``of_service``: it has the user and the
    service of the job in question.
    """

    left_s: float
    runs: bool
    of_user: bool = False
    of_service: bool = True
    elapsed_s: float = 0.0


@dataclass(frozen=True)
class Capacity:
    """Limits of concurrent jobs: slots of the clients (None: not known), of service and user."""

    slots: int | None
    of_service: int
    of_user: int


@dataclass
class _Limit:
    """A number of jobs that may run concurrently, and the ends of those that do, from now."""

    size: int
    ends_s: list[float] = field(default_factory=list)

    def next_free_s(self) -> float:
        """Return when another job may start. Ends up to then are removed."""
        free_s = 0.0
        while len(self.ends_s) >= self.size:
            free_s = heapq.heappop(self.ends_s)
        return free_s

    def add(self, end_s: float) -> None:
        heapq.heappush(self.ends_s, end_s)


def jobs_first(user: WaitingUser, waiting: Sequence[WaitingUser], ahead: int, run_s: float) -> int:
    """Count the jobs of other users that start before the job with ``ahead`` jobs of ``user``.

    Slots go to the user with the least usage, to which each job is expected to add ``run_s``, and
    among equals to the one served longest ago. So each other user has as many turns as make up the
    difference.
    """

    def turns(other: WaitingUser) -> int:
        difference: float = user.active + ahead - other.active
        if other.usage_s != user.usage_s:
            difference += (user.usage_s - other.usage_s) / max(run_s, MIN_RUN_S)
        whole = math.ceil(difference)
        return whole + (whole == difference and other.served < user.served)

    return sum(
        min(other.queued, max(turns(other), 0))
        for other in waiting
        if other.user_id != user.user_id
    )


def expected_wait_s(
    ahead: int, others: int, run_s: float, capacity: Capacity, active: Sequence[ActiveJob]
) -> float:
    """Return in how many seconds a queued job is expected to start.

    ``ahead`` jobs of the same user and service and ``others`` of other users of the service start
    before it, each of which runs for ``run_s``. The limit of the user delays only the former.
    """
    return _wait_s(ahead, others, lambda: run_s, capacity, active, MAX_FOLLOWED)


def wait_quantiles_s(
    ahead: int,
    others: int,
    runs_s: Sequence[float],
    capacity: Capacity,
    active: Sequence[ActiveJob],
    quantiles: Sequence[float] = (0.5, 0.9),
) -> list[float]:
    """Return in how many seconds a queued job starts, for each quantile of such cases.

    Each trial draws a run time for every job from those of the service's last jobs: for a running
    one from those that were longer. The draws are the same in each call, so that the answer does
    not change while nothing else does.
    """
    draw = random.Random(len(active) + ahead)  # noqa: S311 (no secret)
    steps = len(active) + min(ahead + others, MAX_FOLLOWED_PER_TRIAL) + 1
    trials = max(min(MAX_STEPS // steps, MAX_TRIALS), MIN_TRIALS)
    waits_s = sorted(
        _wait_s(
            ahead,
            others,
            lambda: draw.choice(runs_s),
            capacity,
            [_drawn(job, runs_s, draw) for job in active],
            MAX_FOLLOWED_PER_TRIAL,
        )
        for _ in range(trials)
    )
    return [waits_s[min(math.ceil(each * trials), trials) - 1] for each in quantiles]


def _drawn(job: ActiveJob, runs_s: Sequence[float], draw: random.Random) -> ActiveJob:
    """Return an active job of the service with a run time that was drawn from longer ones."""
    if not job.of_service:
        return job
    longer_s = [run_s - job.elapsed_s for run_s in runs_s if run_s > job.elapsed_s]
    return replace(job, left_s=draw.choice(longer_s)) if longer_s else job


def _wait_s(
    ahead: int,
    others: int,
    run_s: Callable[[], float],
    capacity: Capacity,
    active: Sequence[ActiveJob],
    most: int,
) -> float:
    known = len(active) + 1 + ahead + others
    slots = _Limit(known if capacity.slots is None else max(capacity.slots, 1))
    service, user = _Limit(capacity.of_service), _Limit(capacity.of_user)
    for job in sorted(active, key=lambda job: (not job.runs, job.left_s)):
        start_s = 0.0 if job.runs else slots.next_free_s()
        end_s = start_s + job.left_s
        slots.add(end_s)
        if job.of_service:
            service.add(end_s)
        if job.of_user and job.of_service:
            user.add(end_s)
    of_all = _last_start_s(ahead + 1 + others, run_s, (slots, service), most)
    return max(of_all, _last_start_s(ahead + 1, run_s, (user,), most))


def _last_start_s(
    jobs: int, run_s: Callable[[], float], limits: Sequence[_Limit], most: int
) -> float:
    """Return when the last of ``jobs`` starts. Of more than ``most``, the first are typical."""
    followed = min(jobs, most)
    start_s = 0.0
    for _ in range(followed):
        start_s = max(start_s, *(limit.next_free_s() for limit in limits), 0.0)
        end_s = start_s + run_s()
        for limit in limits:
            limit.add(end_s)
    return start_s * jobs / followed
