"""Statistics of the last hour, kept in memory: jobs per minute, queue times and run times."""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from job_orchestrator.common.runtime.clock import steady_time
from job_orchestrator.common.status import FINAL_JOB, JobStatus
from job_orchestrator.server.model import Job
from job_orchestrator.server.store.lists import Times

MINUTES = 60
JOBS_READ_AT_START = 20_000
"""The number of newest jobs from which the statistics are restored at a start."""

RECENT_RUNS = 50
"""Run times of each service that are kept for estimates."""


@dataclass
class Minute:
    """Counts of one minute. ``number`` counts minutes since the epoch."""

    number: int
    submitted: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    waits: int = 0
    waited_s: float = 0.0
    longest_wait_s: float = 0.0

    @property
    def mean_wait_s(self) -> float | None:
        """Mean time from submission to start, of the jobs that started in this minute."""
        return self.waited_s / self.waits if self.waits else None


class JobStatistics:
    """Counts of the last ``MINUTES`` minutes and recent run times of services.

    ``on_job_changed`` subscribes to the store. ``now`` returns seconds since the epoch.
    """

    def __init__(self, now: Callable[[], float] = steady_time) -> None:
        self._now = now
        self._minutes: dict[int, Minute] = {}
        self._runs_s: defaultdict[str, deque[float]] = defaultdict(
            lambda: deque(maxlen=RECENT_RUNS)
        )
        self._run_sums_s: defaultdict[str, float] = defaultdict(float)

    def on_job_changed(self, job: Job) -> None:
        """Count a job that was created, started or ended by this change."""
        if job.status is JobStatus.QUEUED and job.attempt == 0 and job.changed_at == job.created_at:
            self._created(job.created_at)
        elif job.started_at is not None and job.started_at == job.changed_at:
            self._started(job.started_at, job.started_at - job.created_at)
        if job.status in FINAL_JOB and job.ended_at == job.changed_at:
            self._ended(job.service, job.status, job.ran_s, job.ended_at)

    def restore(self, jobs: Iterable[Times]) -> None:
        """Count jobs of previous runs of the server, which are given newest first."""
        for job in reversed(list(jobs)):
            self._created(job.created_at)
            if job.started_at is not None:
                self._started(job.started_at, job.started_at - job.created_at)
            if job.ended_at is not None:
                ran_s = job.run_s
                if ran_s is None and job.started_at is not None:
                    ran_s = max(job.ended_at - job.started_at, 0.0)
                self._ended(job.service, job.status, ran_s, job.ended_at)

    def minutes(self) -> Iterator[Minute]:
        """Yield the last ``MINUTES`` minutes, oldest first; the last one is the current minute."""
        current = int(self._now() // 60)
        for number in range(current - MINUTES + 1, current + 1):
            yield self._minutes.get(number) or Minute(number)

    def remaining_s(self, service: str, elapsed_s: float = 0.0) -> float | None:
        """Estimate how much longer a job runs that has run for ``elapsed_s``.

        The estimate is the median of the recent jobs of the service that ran longer. A job that has
        run longer than all of them is expected to run as long again. None if no job has run.
        """
        runs_s = self._runs_s.get(service)
        if not runs_s:
            return None
        longer_s = [run_s for run_s in runs_s if run_s > elapsed_s]
        return _median(longer_s) - elapsed_s if longer_s else elapsed_s

    def runs_s(self, service: str) -> Sequence[float]:
        """Return the run times of the recent jobs of a service."""
        return tuple(self._runs_s.get(service, ()))

    def mean_run_s(self, service: str) -> float | None:
        """Return the mean run time of the recent jobs of a service; None if no job has run."""
        runs_s = self._runs_s.get(service)
        if not runs_s:
            return None
        return self._run_sums_s[service] / len(runs_s)

    def _created(self, at: float) -> None:
        if (minute := self._minute(at)) is not None:
            minute.submitted += 1

    def _started(self, at: float, waited_s: float) -> None:
        if (minute := self._minute(at)) is not None:
            minute.waits += 1
            minute.waited_s += waited_s
            minute.longest_wait_s = max(minute.longest_wait_s, waited_s)

    def _ended(
        self, service: str, status: JobStatus, run_s: float | None, at: float | None
    ) -> None:
        if at is None:
            return
        if (minute := self._minute(at)) is not None:
            if status is JobStatus.COMPLETED:
                minute.completed += 1
            elif status is JobStatus.KILLED:
                minute.cancelled += 1
            elif status in (JobStatus.FAILED, JobStatus.INVALID):
                minute.failed += 1
        # A cancelled job says nothing of how long the others run.
        if run_s is not None and status is not JobStatus.KILLED:
            runs_s = self._runs_s[service]
            if len(runs_s) == RECENT_RUNS:
                self._run_sums_s[service] -= runs_s[0]
            runs_s.append(run_s)
            self._run_sums_s[service] += run_s

    def _minute(self, at: float) -> Minute | None:
        """Return the minute of a time; None if the time is more than ``MINUTES`` ago."""
        number = int(at // 60)
        if number not in self._minutes:
            oldest = int(self._now() // 60) - MINUTES + 1
            if number < oldest:
                return None
            for old in [known for known in self._minutes if known < oldest]:
                del self._minutes[old]
            self._minutes[number] = Minute(number)
        return self._minutes[number]


def _median(values: Sequence[float]) -> float:
    """Return the median. The module ``statistics`` takes half a MiB of memory for it."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    return (ordered[middle] + ordered[~middle]) / 2
