"""A job for tests that need one without a store."""

from job_orchestrator.common.status import JobStatus
from job_orchestrator.server.model import Job

JOB = Job(
    id=1,
    uuid="u",
    user_id=1,
    service="s",
    status=JobStatus.COMPLETED,
    message="",
    attempt=1,
    nonce="",
    failures=0,
    not_before=0,
    client=None,
    dest_id=None,
    exit_code=None,
    has_output=True,
    kill_requested=False,
    created_at=0,
    changed_at=0,
    ended_at=None,
    name="",
    tag="",
    priority=0,
    time_limit_s=None,
    callback_url=None,
    started_at=None,
    input_bytes=None,
    output_bytes=None,
    output_sha256=None,
)
