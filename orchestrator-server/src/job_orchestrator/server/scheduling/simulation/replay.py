"""Replay of a trace on a virtual clock, by the function that decides in the running server."""

import heapq
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from job_orchestrator.server.scheduling.base import Limits, SchedulingPolicy
from job_orchestrator.server.scheduling.simulation.trace import TraceJob
from job_orchestrator.server.store.queue import QueuedJob, WaitingUser
from job_orchestrator.server.store.usage import Usage

RECENT_RUNS = 50
"""Run times of a service from which the next one is expected."""

LimitsAt = Callable[[str, float, float], Limits]
"""Maps a service, its expected run time and the time in seconds to the limits that hold."""


@dataclass(frozen=True)
class Outcome:
    """The wait of each job of the trace, in its order, and how the slots were used.

    ``idle_s`` are the slot-seconds that were idle while jobs waited.
    """

    waits_s: Sequence[float]
    used_s: float
    idle_s: float
    span_s: float
    slots: int


@dataclass
class _User:
    """The queue of a user in a service."""

    queue: list[tuple[int, int]] = field(default_factory=list)
    active: int = 0
    served: int = 0
    usage: Usage = field(default_factory=Usage)


class Replay:
    """Replays jobs on the slots that the clients of each service have."""

    def __init__(
        self,
        policies: Mapping[str, SchedulingPolicy],
        limits_at: LimitsAt,
        slots: Mapping[str, int],
        half_life_s: float,
    ) -> None:
        self._policies = policies
        self._limits_at = limits_at
        self._slots = slots
        self._half_life_s = half_life_s
        self._users: dict[str, dict[int, _User]] = {}
        self._waiting: dict[str, set[int]] = {}
        self._queued: Counter[str] = Counter()
        self._active: Counter[str] = Counter()
        self._everywhere: Counter[int] = Counter()
        self._runs_s: dict[str, deque[float]] = {}
        self._served = 0

    def run(self, jobs: Sequence[TraceJob]) -> Outcome:
        """Replay jobs that are in the order of their arrival."""
        waits_s = [0.0] * len(jobs)
        ends: list[tuple[float, int]] = []
        arrived, now, idle_s = 0, 0.0, 0.0
        while arrived < len(jobs) or ends:
            coming_s = jobs[arrived].arrival_s if arrived < len(jobs) else float("inf")
            until = min(coming_s, ends[0][0] if ends else float("inf"))
            idle_s += (until - now) * self._idle_slots()
            now = until
            while ends and ends[0][0] <= now:
                self._end(jobs[heapq.heappop(ends)[1]], now)
            while arrived < len(jobs) and jobs[arrived].arrival_s <= now:
                self._arrive(arrived, jobs[arrived])
                arrived += 1
            for number in self._start(jobs, now):
                waits_s[number] = now - jobs[number].arrival_s
                heapq.heappush(ends, (now + jobs[number].run_s, number))
            if not ends and arrived == len(jobs):
                break  # what still waits may never start by these limits
        used_s = sum(job.run_s for job in jobs)
        return Outcome(waits_s, used_s, idle_s, now, sum(self._slots.values()))

    def _idle_slots(self) -> int:
        """Count the slots that are free while jobs of their service wait."""
        return sum(
            min(self._slots[service] - self._active[service], queued)
            for service, queued in self._queued.items()
        )

    def _arrive(self, number: int, job: TraceJob) -> None:
        user = self._users.setdefault(job.service, {}).setdefault(job.user_id, _User())
        heapq.heappush(user.queue, (-job.priority, number))
        self._waiting.setdefault(job.service, set()).add(job.user_id)
        self._queued[job.service] += 1

    def _end(self, job: TraceJob, now: float) -> None:
        user = self._users[job.service][job.user_id]
        user.active -= 1
        user.usage = user.usage.holding(user.active, now, self._half_life_s)
        self._active[job.service] -= 1
        self._everywhere[job.user_id] -= 1
        self._runs_s.setdefault(job.service, deque(maxlen=RECENT_RUNS)).append(job.run_s)

    def _start(self, jobs: Sequence[TraceJob], now: float) -> list[int]:
        """Start the jobs that the policies choose. Returns their numbers."""
        started: list[int] = []
        for service, names in self._waiting.items():
            free = self._slots[service] - self._active[service]
            if not names or free <= 0:
                continue
            runs_s = self._runs_s.get(service)
            limits = self._limits_at(service, sum(runs_s) / len(runs_s) if runs_s else 1.0, now)
            waiting = [self._as_waiting(service, user, free, jobs, now) for user in sorted(names)]
            chosen = self._policies[service].choose(
                limits, self._active[service], free, waiting, self._everywhere
            )
            started += [self._take(service, user_id, now) for user_id in chosen]
        return started

    def _as_waiting(
        self, service: str, user_id: int, free: int, jobs: Sequence[TraceJob], now: float
    ) -> WaitingUser:
        user = self._users[service][user_id]
        queued = min(len(user.queue), free)
        upcoming: tuple[QueuedJob, ...] = ()
        if self._policies[service].in_order:
            first = heapq.nsmallest(queued, user.queue)
            upcoming = tuple(QueuedJob(n, -rank, jobs[n].arrival_s) for rank, n in first)
        return WaitingUser(
            user_id,
            queued,
            user.active,
            user.served,
            user.queue[0][1],
            user.usage.seconds_at(now, self._half_life_s),
            upcoming,
        )

    def _take(self, service: str, user_id: int, now: float) -> int:
        user = self._users[service][user_id]
        _, number = heapq.heappop(user.queue)
        if not user.queue:
            self._waiting[service].discard(user_id)
        self._served += 1
        user.served = self._served
        user.active += 1
        user.usage = user.usage.holding(user.active, now, self._half_life_s)
        self._queued[service] -= 1
        self._active[service] += 1
        self._everywhere[user_id] += 1
        return number
