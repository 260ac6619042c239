"""JSON answers about jobs, errors included, and the schemas that document them."""

from typing import Any

from job_orchestrator.common.errors import NO_SUCH_PATH, TOO_MUCH_STORED, DomainError
from job_orchestrator.common.messages import (
    ClientList,
    JobDetail,
    JobError,
    JobPage,
    ResultFiles,
    ServiceList,
    Stats,
    encode,
)
from job_orchestrator.common.status import JobStatus
from job_orchestrator.server.web.schemas import schemas_of

SCHEMAS: dict[str, Any] = {
    **schemas_of([JobPage, JobDetail, ResultFiles, ServiceList, ClientList, Stats]),
    "WhoAmI": {
        "type": "object",
        "required": ["user_id", "admin", "auth"],
        "properties": {
            "user_id": {"type": "integer", "nullable": True, "description": "null: none"},
            "admin": {"type": "boolean", "description": "May see and do everything"},
            "auth": {"type": "boolean", "description": "Tokens are wanted here"},
        },
        "example": {"user_id": 7, "admin": False, "auth": True},
    },
    "JobAnswer": {
        "type": "object",
        "required": ["id", "status", "message"],
        "properties": {
            "id": {"type": "integer", "description": "The job, or 0 if there is none"},
            "status": {"type": "string", "enum": [status.value for status in JobStatus]},
            "message": {"type": "string", "description": "Why, for the user"},
            "code": {
                "type": "string",
                "enum": [NO_SUCH_PATH, TOO_MUCH_STORED],
                "description": "Where the status code does not tell errors apart",
            },
        },
        "example": {"id": 1, "status": "Queued", "message": "Job successfully uploaded"},
    },
}


def error_body(error: Exception | None, message: str) -> bytes:
    """The body of an error: the job that it is about, if it names one, and its state if known."""
    code = error.code if isinstance(error, DomainError) else ""
    job_id = getattr(error, "job_id", 0)
    status = getattr(error, "status", JobStatus.UNKNOWN)
    return encode(JobError(job_id, status, message, code))
