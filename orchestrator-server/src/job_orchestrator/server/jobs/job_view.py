"""A job as it is told to web apps."""

from datetime import UTC, datetime

from job_orchestrator.common.messages import JobView
from job_orchestrator.common.status import JobStatus
from job_orchestrator.server.model import Job


def view_of(job: Job) -> JobView:
    """What web apps see of a job."""
    return JobView(
        id=job.id,
        user_id=job.user_id,
        service=job.service,
        status=job.status,
        message=job.message,
        name=job.name,
        tag=job.tag,
        priority=job.priority,
        attempt=job.attempt,
        exit_code=job.exit_code,
        client=job.client,
        time_limit_s=job.time_limit_s,
        created_at=iso(job.created_at),
        started_at=None if job.started_at is None else iso(job.started_at),
        ended_at=None if job.ended_at is None else iso(job.ended_at),
        has_output=job.has_output and job.status is not JobStatus.CLEANED,
        output_bytes=job.output_bytes,
    )


def iso(moment: float) -> str:
    """Seconds since the epoch in ISO 8601, in UTC, with milliseconds."""
    text = datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
