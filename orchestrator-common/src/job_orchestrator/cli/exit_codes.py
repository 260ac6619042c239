"""What the exit status of ``jo`` says. Where a job failed, it is the job's own."""

from job_orchestrator.sdk import (
    ApiError,
    Job,
    JobNotFound,
    JobStatus,
    NotAuthorized,
    NotEnded,
    OutputNotFound,
    QuotaExceeded,
    Refused,
    ServerUnavailable,
)

FAILED = 1
"""A job failed without an exit code of its own; ``doctor`` found something; any other failure."""

USAGE = 2
DATA = 65
"""The server, or ``jo`` itself, refuses what was to be sent."""

NOT_FOUND = 66
UNAVAILABLE = 69
"""The server can't be reached."""

TRY_LATER = 75
"""A quota is used up."""

NO_PERMISSION = 77
TIMEOUT = 124
"""The job has not ended in the time given; as the command ``timeout`` says it."""

INVALID = 126
"""The script was refused; as a shell says of what can't be executed."""

SIGNALLED = 128
"""Plus the signal's number; as a shell says it."""

KILLED = SIGNALLED + 9

# The first that matches counts.
_OF_ERRORS: tuple[tuple[type[ApiError], int], ...] = (
    (Refused, DATA),
    (JobNotFound, NOT_FOUND),
    (OutputNotFound, NOT_FOUND),
    (ServerUnavailable, UNAVAILABLE),
    (QuotaExceeded, TRY_LATER),
    (NotAuthorized, NO_PERMISSION),
    (NotEnded, TIMEOUT),
)


def of_error(error: ApiError) -> int:
    """The exit status that tells of ``error``."""
    return next((code for kind, code in _OF_ERRORS if isinstance(error, kind)), FAILED)


def of_job(job: Job) -> int:
    """The exit status that tells how a job has ended."""
    match job.status:
        case JobStatus.INVALID:
            return INVALID
        case JobStatus.KILLED:
            return KILLED
        case JobStatus.COMPLETED:
            return 0
    code = job.exit_code
    if code is None or code == 0:
        return 0 if job.status is JobStatus.CLEANED and code == 0 else FAILED
    return SIGNALLED - code if code < 0 else code & 0xFF or FAILED
