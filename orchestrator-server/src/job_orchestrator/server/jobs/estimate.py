"""Estimate of when a queued job starts, from the active jobs and the limits. Pure functions."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class ActiveJob:
    """An active job. ``left_s`` is its expected run time from now, or from its start if it waits.

    ``of_user`` and ``of_service``: it has the user and the service of the job in question.
    """

    left_s: float
    runs: bool
    of_user: bool = False
    of_service: bool = True


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


def expected_wait_s(
    ahead: int, run_s: float, capacity: Capacity, active: Sequence[ActiveJob]
) -> float:
    """Return in how many seconds a queued job is expected to start.

    ``ahead`` jobs of the same user and service start before it, each of which runs for ``run_s``.
    Queued jobs of other users are not considered: slots go to the users in turn.
    """
    slots = _Limit(len(active) + 1 + ahead if capacity.slots is None else max(capacity.slots, 1))
    service, user = _Limit(capacity.of_service), _Limit(capacity.of_user)
    for job in sorted(active, key=lambda job: (not job.runs, job.left_s)):
        start_s = 0.0 if job.runs else slots.next_free_s()
        end_s = start_s + job.left_s
        slots.add(end_s)
        if job.of_service:
            service.add(end_s)
        if job.of_user and job.of_service:
            user.add(end_s)
    start_s = 0.0
    for _ in range(ahead + 1):
        start_s = max(start_s, *(limit.next_free_s() for limit in (slots, service, user)))
        for limit in (slots, service, user):
            limit.add(start_s + run_s)
    return start_s
