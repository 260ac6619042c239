"""Contract between the batch executor and one batch system."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from job_orchestrator.common.errors import DomainError
from job_orchestrator.common.messages.resources import NOTHING, Resources


class JobPhase(StrEnum):
    """Phase of a batch job, as its system reports it."""

    WAITING = "waiting"
    """In the queue, also if held."""

    RUNNING = "running"
    """Running, suspended, or being cleaned up; also every word that is not known."""

    ENDED = "ended"
    """The job script has ended by itself."""

    CANCELLED = "cancelled"
    TIMED_OUT = "timed out"
    OUT_OF_MEMORY = "out of memory"

    EVICTED = "evicted"
    """The system ended the job for reasons of its own: its node failed, or it was preempted."""


@dataclass(frozen=True)
class BatchJob:
    """A job to submit. ``name`` is unique; ``log`` gets the output of the job script itself."""

    name: str
    script: Path
    log: Path
    folder: Path
    time_limit_s: float | None = None
    resources: Resources = NOTHING


@dataclass(frozen=True)
class JobReport:
    """A job as its system reports it. ``word`` and ``reason`` are the system's own.

    ``exit_code`` is as shells count (128 + n for signal n); None if the system does not say.
    """

    native_id: str
    phase: JobPhase
    word: str
    reason: str = ""
    exit_code: int | None = None

    @property
    def is_live(self) -> bool:
        """True if the job waits or runs."""
        return self.phase in (JobPhase.WAITING, JobPhase.RUNNING)

    def __str__(self) -> str:
        return f"{self.word} ({self.reason})" if self.reason else self.word


class JobRefused(DomainError):
    """The system refuses the job, and would refuse it again."""


class SubmitLimitReached(DomainError):
    """The system takes no more jobs of this user or account at present. None was submitted."""


class SchedulerUnavailable(DomainError):
    """The system did not answer. What was asked for may have been done."""


class Scheduler(Protocol):
    """Commands of one batch system. Each may raise ``SchedulerUnavailable``.

    Ids of jobs that have ended, or never existed, are no error.
    """

    @property
    def name(self) -> str:
        """Name of the system, for people."""

    async def verify(self) -> None:
        """Check that the commands can be used. Raises ``StartupError``."""

    async def submit(self, job: BatchJob) -> str:
        """Submit a job, and return its native id.

        Raises ``JobRefused``, ``SubmitLimitReached``.
        """

    async def jobs(self) -> Mapping[str, JobReport]:
        """Return all jobs of this user that the system has, by name, with one command."""

    async def ended(self, native_id: str, name: str) -> JobReport | None:
        """Return what the system remembers of a job; None if nothing.

        A system that has lost its state gives the same id to another job, with another ``name``.
        """

    async def terminate(self, native_ids: Collection[str]) -> None:
        """Ask the processes of jobs to end: send TERM, where the system can."""

    async def cancel(self, native_ids: Collection[str]) -> None:
        """End jobs, waiting or running."""
