"""What the end of a payload makes of its job."""

from collections.abc import Mapping

from job_orchestrator.common.messages import Payload
from job_orchestrator.common.status import JobStatus, PayloadStatus

ENDED_BADLY: Mapping[PayloadStatus, JobStatus] = {
    PayloadStatus.FAILED: JobStatus.FAILED,
    PayloadStatus.INVALID: JobStatus.INVALID,
    PayloadStatus.KILLED: JobStatus.KILLED,
}
"""The state that a job gets from a payload that ended without results."""


def reason_of(payload: Payload) -> str:
    """Why such a payload ended so, for the job's user; older clients give no message."""
    if payload.message:
        return payload.message
    if payload.status is PayloadStatus.INVALID:
        return "The client's check of run.sh refused it"
    if payload.exit_code is not None:
        return f"run.sh exited with code {payload.exit_code}"
    return f"The client reports {payload.status}"
