"""The contract of the job store: the values that go in and come out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from job_orchestrator.common.status import JobStatus
from job_orchestrator.server.model import Job


@dataclass(frozen=True)
class WaitingUser:
    """A user with queued jobs of one service.

    ``queued`` counts the jobs that may be claimed now (it may be capped at the free slots),
    ``active`` those that hold a slot. ``served`` is the number of the last claim for this user (0:
    never), so smaller means longer ago. ``head`` is the id of the next job in the user's queue.
    """

    user_id: int
    queued: int
    active: int
    served: int
    head: int


@dataclass(frozen=True)
class Claim:
    """What a claim saw (before) and took. ``waiting`` is empty when no slot was free."""

    jobs: Sequence[Job]
    active: int
    waiting: Sequence[WaitingUser]


@dataclass(frozen=True)
class Offer:
    """What a service may be given: at most ``max_active`` active jobs; ``clients`` get one each."""

    max_active: int
    clients: Sequence[str]
    decide: "Decide"


Decide = Callable[[int, Sequence[WaitingUser]], Sequence[int]]
"""From the number of active jobs and the waiting users: the user of each job to claim, in order."""


@dataclass(frozen=True)
class JobEvent:
    """A job got ``status`` because of ``why``; ``job`` is as it was when this was read."""

    id: int
    at: float
    status: JobStatus
    why: str
    job: Job


NEWEST = 2**63 - 1
"""A cursor before which every job is."""


@dataclass(frozen=True)
class JobFilter:
    """Which jobs a list holds; None and () let all through."""

    user_id: int | None = None
    service: str | None = None
    statuses: Sequence[JobStatus] = ()
    tag: str | None = None

    @property
    def values(self) -> Mapping[str, object]:
        """The values of ``statement``."""
        return {"user_id": self.user_id, "service": self.service, "tag": self.tag}


@dataclass(frozen=True)
class Change:
    """One change of a job's state. ``before`` is None where the job was created."""

    at: float
    before: JobStatus | None
    to: JobStatus
    why: str


@dataclass(frozen=True)
class Times:
    """When a job was created, started and ended, seconds since the epoch."""

    service: str
    status: JobStatus
    created_at: float
    started_at: float | None
    ended_at: float | None


@dataclass(frozen=True)
class DueCallback:
    """An end to tell, which was tried ``attempts`` times."""

    job: Job
    attempts: int


# A job's place is only counted so far; beyond it the answer is "more than".
MAX_PLACE = 1000
