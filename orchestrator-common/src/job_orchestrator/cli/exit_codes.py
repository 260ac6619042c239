"""Exit status of ``jo``. After a wait for a job it is the job's own."""

from job_orchestrator.sdk import (
    ApiError,
    Job,
    JobNotFound,
    JobStatus,
    MachineUnavailable,
    NotAuthorized,
    NotEnded,
    OutputNotFound,
    QuotaExceeded,
    Refused,
    ServerUnavailable,
)

FAILED = 1
"""A job failed without an exit code, ``doctor`` found a problem, or any other failure."""

USAGE = 2
DATA = 65
"""EX_DATAERR of sysexits.h: the server or ``jo`` itself rejects the files or a value."""

NOT_FOUND = 66
"""EX_NOINPUT: no such job, or no output."""

UNAVAILABLE = 69
"""EX_UNAVAILABLE: the server can't be reached."""

TRY_LATER = 75
"""EX_TEMPFAIL: a quota is used up, or the machine of the job does not answer."""

NO_PERMISSION = 77
"""EX_NOPERM: the token is missing, wrong, or does not allow the call."""

TIMEOUT = 124
"""The job has not ended in time; the same status as that of the command ``timeout``."""

INVALID = 126
"""The script was refused; the status of shells for a command that can't be executed."""

SIGNALLED = 128
"""Added to the number of the signal that ended the script, as shells do."""

KILLED = SIGNALLED + 9

# The first match wins.
_BY_ERROR: tuple[tuple[type[ApiError], int], ...] = (
    (Refused, DATA),
    (JobNotFound, NOT_FOUND),
    (OutputNotFound, NOT_FOUND),
    (ServerUnavailable, UNAVAILABLE),
    (QuotaExceeded, TRY_LATER),
    (MachineUnavailable, TRY_LATER),
    (NotAuthorized, NO_PERMISSION),
    (NotEnded, TIMEOUT),
)


def of_error(error: ApiError) -> int:
    """Return the exit status for a failed call."""
    return next((code for kind, code in _BY_ERROR if isinstance(error, kind)), FAILED)


def of_job(job: Job) -> int:
    """Return the exit status for a job that has ended."""
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
