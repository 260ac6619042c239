"""JSON bodies of errors, and the schemas of all JSON bodies in the OpenAPI document."""

import contextlib
import inspect
from collections.abc import Iterable
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from job_orchestrator.common.errors import (
    CLIENT_IN_USE,
    NO_SUCH_CLIENT,
    NO_SUCH_JOB,
    NO_SUCH_PATH,
    TOO_MUCH_STORED,
    BadRequest,
    DomainError,
)
from job_orchestrator.common.messages.encoding import encode
from job_orchestrator.common.messages.explanation import Explanation
from job_orchestrator.common.messages.jobs import (
    ArrayAnswer,
    JobArray,
    JobDetail,
    JobError,
    JobPage,
    ResultFiles,
)
from job_orchestrator.common.messages.service import (
    ClientList,
    PauseList,
    PersonalLimits,
    ServiceList,
    SignedIn,
    SignInCode,
    SignInOptions,
    Stats,
    UserList,
)
from job_orchestrator.common.status import JobStatus
from job_orchestrator.server import keys
from job_orchestrator.server.errors import ClientError, JobAlreadyEnded, JobNotFound, StoreError
from job_orchestrator.server.model import Job
from job_orchestrator.server.web.parameters import PRINCIPAL, job_id


def _schemas_of(messages: Iterable[type[msgspec.Struct]]) -> dict[str, Any]:
    """Return the schemas of messages and of their parts, by name."""
    _, components = msgspec.json.schema_components(
        messages, ref_template="#/components/schemas/{name}"
    )
    for schema in components.values():
        # A description is the docstring of a class. Markdown displays indented text as code.
        if "description" in schema:
            schema["description"] = inspect.cleandoc(schema["description"])
    return {name: _in_version_3_0(_complete(schema)) for name, schema in components.items()}


def _complete(schema: dict[str, Any]) -> dict[str, Any]:
    """Mark every field as required: answers hold all fields, defaults are for readers."""
    fields = schema.get("properties")
    if fields is None:
        return schema
    for field in fields.values():
        field.pop("default", None)
    return {**schema, "required": list(fields)}


def _in_version_3_0(schema: Any) -> Any:
    """Write ``nullable`` for the type "null", which OpenAPI 3.0 does not have."""
    if isinstance(schema, list):
        return [_in_version_3_0(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    kinds = schema.get("anyOf", [])
    if {"type": "null"} in kinds:
        (kind,) = (each for each in kinds if each != {"type": "null"})
        rest = {name: value for name, value in schema.items() if name != "anyOf"}
        inner = {"allOf": [kind]} if "$ref" in kind else kind
        return {**_in_version_3_0(rest), **_in_version_3_0(inner), "nullable": True}
    return {name: _in_version_3_0(value) for name, value in schema.items()}


_CONCERNED = web.RequestKey("concerned", Job)
"""The job that a failed request is about."""

SCHEMAS: dict[str, Any] = {
    **_schemas_of(
        [
            JobPage,
            JobDetail,
            JobArray,
            ArrayAnswer,
            Explanation,
            ResultFiles,
            ServiceList,
            ClientList,
            Stats,
            PersonalLimits,
            PauseList,
            UserList,
            SignInOptions,
            SignInCode,
            SignedIn,
        ]
    ),
    "WhoAmI": {
        "type": "object",
        "required": ["user_id", "admin", "auth"],
        "properties": {
            "user_id": {
                "type": "integer",
                "nullable": True,
                "description": "null for administrators",
            },
            "admin": {"type": "boolean", "description": "May see and do everything"},
            "auth": {"type": "boolean", "description": "This server requires tokens"},
            "name": {"type": "string", "description": "Name of a user of an issuer, or empty"},
            "limits": {
                "nullable": True,
                "description": "Limits over all services; null for administrators",
                "allOf": [{"$ref": "#/components/schemas/PersonalLimits"}],
            },
        },
        "example": {
            "user_id": 7,
            "admin": False,
            "auth": True,
            "limits": {
                "active": 2,
                "max_runs": 4,
                "jobs_per_hour": 60.0,
                "jobs_left": 17,
                "paused": False,
                "use": [
                    {
                        "kind": "user",
                        "name": "",
                        "used": 2,
                        "limit": 4,
                        "reached": False,
                    }
                ],
            },
        },
    },
    "JobAnswer": {
        "type": "object",
        "required": ["id", "status", "message"],
        "properties": {
            "id": {"type": "integer", "description": "The job, or 0 if there is none"},
            "status": {"type": "string", "enum": [status.value for status in JobStatus]},
            "message": {"type": "string", "description": "Reason, for the user"},
            "code": {
                "type": "string",
                "enum": [NO_SUCH_JOB, NO_SUCH_PATH, NO_SUCH_CLIENT, CLIENT_IN_USE, TOO_MUCH_STORED],
                "description": "Distinguishes errors of one status code",
            },
        },
        "example": {"id": 1, "status": "Queued", "message": "Job successfully uploaded"},
    },
}


def message_for(request: web.Request, error: DomainError) -> str:
    """Return the message of an error; names of clients are for administrators only."""
    principal = request.get(PRINCIPAL)
    if isinstance(error, ClientError) and principal is not None and not principal.is_admin:
        return error.for_users
    return str(error)


@web.middleware
async def name_job_of_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let errors about the job in the path name the job and its state.

    It runs within ``access``, so that nobody learns of jobs of others.
    """
    try:
        return await handler(request)
    except DomainError as error:
        if "id" in request.match_info and not isinstance(error, JobNotFound):
            # The error is answered without the job if the database fails, or the id is invalid.
            with contextlib.suppress(JobNotFound, BadRequest, StoreError):
                store = request.app[keys.QUERIES].store
                request[_CONCERNED] = await store.get(job_id(request))
        raise


def error_body(request: web.Request | None, error: Exception | None, message: str) -> bytes:
    """Return the body of an error, with the job that it concerns and the state, as far as known."""
    code = error.code if isinstance(error, DomainError) else ""
    job = None if request is None else request.get(_CONCERNED)
    number, status = (job.id, job.status) if job is not None else (0, JobStatus.UNKNOWN)
    if isinstance(error, JobAlreadyEnded):
        status = error.status
    return encode(JobError(number, status, message, code))
