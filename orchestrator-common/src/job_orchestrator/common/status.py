"""States of jobs (server) and payloads (client), and the only table of their transitions."""

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar

from job_orchestrator.common.errors import DomainError


class JobStatus(StrEnum):
    """State of a job on the server, as in every answer."""

    QUEUED = "Queued"
    PROCESSING = "Processing"
    SUBMITTED = "Submitted"
    RUNNING = "Running"
    UNKNOWN = "Unknown"
    COMPLETED = "Completed"
    FAILED = "Failed"
    INVALID = "Invalid"
    KILLED = "Killed"
    CLEANED = "Cleaned"

    @property
    def has_ended(self) -> bool:
        """True if the job has ended; its files may have been removed since."""
        return self in FINAL_JOB or self is JobStatus.CLEANED


class PayloadStatus(StrEnum):
    """State of a payload, the client's copy of a job."""

    PREPARED = "Prepared"
    RUNNING = "Running"
    COMPLETED = "Completed"
    FAILED = "Failed"
    INVALID = "Invalid"
    KILLED = "Killed"
    CLEANED = "Cleaned"

    @property
    def has_ended(self) -> bool:
        """True if the payload has ended; its files may have been removed since."""
        return self in FINAL_PAYLOAD or self is PayloadStatus.CLEANED


_J = JobStatus
_P = PayloadStatus

ACTIVE_JOB = frozenset({_J.PROCESSING, _J.SUBMITTED, _J.RUNNING, _J.UNKNOWN})
"""States that quotas count: the job uses, or may use, a slot of a client."""

DISPATCHED_JOB = frozenset({_J.SUBMITTED, _J.RUNNING, _J.UNKNOWN})
"""States in which a client has a payload of the job."""

FINAL_JOB = frozenset({_J.COMPLETED, _J.FAILED, _J.INVALID, _J.KILLED})
"""States that do not change any more, except to Cleaned after the retention time."""

FINAL_PAYLOAD = frozenset({_P.COMPLETED, _P.FAILED, _P.INVALID, _P.KILLED})

JOB_TRANSITIONS: Mapping[JobStatus, frozenset[JobStatus]] = {
    # Failed: a job that had to complete before it has not.
    _J.QUEUED: frozenset({_J.PROCESSING, _J.FAILED, _J.KILLED}),
    _J.PROCESSING: frozenset({_J.SUBMITTED, _J.QUEUED, _J.FAILED, _J.KILLED}),
    _J.SUBMITTED: frozenset({_J.RUNNING, _J.UNKNOWN, _J.QUEUED}) | FINAL_JOB,
    # A client reports Invalid for a payload that it had reported Running a moment before: the
    # script check is the first thing that happens in a slot.
    _J.RUNNING: frozenset({_J.UNKNOWN, _J.QUEUED}) | FINAL_JOB,
    # Back to Submitted: the client answers again and the payload still waits there for a slot.
    _J.UNKNOWN: frozenset({_J.SUBMITTED, _J.RUNNING, _J.QUEUED}) | FINAL_JOB,
    _J.COMPLETED: frozenset({_J.CLEANED}),
    _J.FAILED: frozenset({_J.CLEANED}),
    _J.INVALID: frozenset({_J.CLEANED}),
    _J.KILLED: frozenset({_J.CLEANED}),
    _J.CLEANED: frozenset(),
}

PAYLOAD_TRANSITIONS: Mapping[PayloadStatus, frozenset[PayloadStatus]] = {
    _P.PREPARED: frozenset({_P.RUNNING, _P.KILLED}),
    _P.RUNNING: FINAL_PAYLOAD,
    _P.COMPLETED: frozenset({_P.CLEANED}),
    _P.FAILED: frozenset({_P.CLEANED}),
    _P.INVALID: frozenset({_P.CLEANED}),
    _P.KILLED: frozenset({_P.CLEANED}),
    _P.CLEANED: frozenset(),
}


class TransitionRefused(DomainError):
    """The requested state can't follow the current state.

    ``current`` is the state at the time of the refusal, so that a caller that lost a race can
    answer with the state that won it.
    """

    def __init__(self, what: str, current: JobStatus | PayloadStatus, wanted: StrEnum) -> None:
        super().__init__(f"{what} is {current} and can't become {wanted}")
        self.current = current
        self.wanted = wanted


Status = TypeVar("Status", JobStatus, PayloadStatus)


def may_become(current: Status, wanted: Status) -> bool:
    """Return True if ``wanted`` may follow ``current``."""
    if isinstance(current, JobStatus) and isinstance(wanted, JobStatus):
        return wanted in JOB_TRANSITIONS[current]
    if isinstance(current, PayloadStatus) and isinstance(wanted, PayloadStatus):
        return wanted in PAYLOAD_TRANSITIONS[current]
    return False


def check_transition(what: str, current: Status, wanted: Status) -> None:
    """Raise ``TransitionRefused`` (naming ``what``) unless ``wanted`` may follow ``current``."""
    if not may_become(current, wanted):
        raise TransitionRefused(what, current, wanted)


def origins(wanted: Status) -> frozenset[Status]:
    """Return all states that ``wanted`` may follow: the set for a compare-and-set."""
    return frozenset(state for state in type(wanted) if may_become(state, wanted))
