"""Contract of the lists, histories and counts of jobs: a part of the contract of the job store."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from job_orchestrator.common.status import JobStatus
from job_orchestrator.server.model import Job, JobFilter


@dataclass(frozen=True)
class Change:
    """One change of a job's status. ``before`` is None for the creation of the job."""

    at: float
    before: JobStatus | None
    to: JobStatus
    why: str


@dataclass(frozen=True)
class Times:
    """Times at which a job was created, started and ended; seconds that its script ran."""

    service: str
    status: JobStatus
    created_at: float
    started_at: float | None
    ended_at: float | None
    run_s: float | None = None


@dataclass(frozen=True)
class WaitingJobs:
    """The jobs that have not started yet: their number and the times of their submission.

    Both times are None if there are none.
    """

    count: int
    mean_created_at: float | None
    first_created_at: float | None


class JobLists(Protocol):
    """Reads lists, histories and counts of jobs. The cost does not grow with ended jobs."""

    async def page(self, wanted: JobFilter, before: int, limit: int) -> Sequence[Job]:
        """Return at most ``limit`` jobs with ids below ``before``, newest first."""

    async def history(self, job: Job) -> Sequence[Change]:
        """Return the status changes of a job, oldest first, at most 1000."""

    async def unended(self) -> Mapping[tuple[str, JobStatus], int]:
        """Count the jobs that have not ended, by service and status. Counts of 0 are left out."""

    async def waiting(self) -> WaitingJobs:
        """Count the jobs whose present attempt has not started, queued or at a client."""

    async def latest(self, limit: int) -> Sequence[Times]:
        """Return the times of the newest jobs, newest first."""
