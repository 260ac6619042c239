"""What the log says of an attempt to run a job, in each line that has to do with it."""

from collections.abc import Mapping

from job_orchestrator.common.logs.context import REQUEST_ID
from job_orchestrator.server.model import Job


def about_attempt(job: Job) -> Mapping[str, object]:
    """The fields of an attempt. Its requests have one id, which the client's log has too."""
    return {
        "job": job.id,
        "user": job.user_id,
        "service": job.service,
        "client": job.client,
        REQUEST_ID: f"job-{job.id}.{job.attempt}",
    }
