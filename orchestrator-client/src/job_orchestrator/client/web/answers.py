"""JSON bodies about payloads and errors, and their schemas in the OpenAPI document."""

import re
from typing import Any

import msgspec
from aiohttp import web

from job_orchestrator.client import keys
from job_orchestrator.client.model import PayloadRow
from job_orchestrator.common.errors import BadRequest, DomainError
from job_orchestrator.common.messages.encoding import encode
from job_orchestrator.common.messages.payloads import ErrorPayload, Payload
from job_orchestrator.common.protocol.headers import IDEMPOTENCY_KEY
from job_orchestrator.common.protocol.link import KEY_PATTERN, MAX_KEY_LENGTH
from job_orchestrator.common.status import PayloadStatus

_KEY = re.compile(f"{KEY_PATTERN}{{1,{MAX_KEY_LENGTH}}}")
_MAX_DIGITS = 12

SCHEMAS: dict[str, Any] = {
    "Discarded": {
        "type": "object",
        "required": ["discarded"],
        "properties": {"discarded": {"type": "array", "items": {"type": "integer"}}},
        "example": {"discarded": [1790000000]},
    },
    "InventoryEntry": {
        "type": "object",
        "required": ["id", "key", "status"],
        "properties": {
            "id": {"type": "integer"},
            "key": {
                "type": "string",
                "nullable": True,
                "description": "Idempotency-Key of its submit",
            },
            "status": {"type": "string", "enum": [status.value for status in PayloadStatus]},
        },
        "example": {"id": 1790000000, "key": "a-key", "status": "Running"},
    },
    "Payload": {
        "type": "object",
        "required": ["id", "input", "status", "loc", "pid", "killed", "exit_code", "message"],
        "properties": {
            "id": {"type": "integer", "description": "0 in errors"},
            "input": {"type": "object", "description": "Always empty"},
            "status": {
                "type": "string",
                "enum": [*(status.value for status in PayloadStatus), "Unknown"],
            },
            "loc": {"type": "string", "description": "Its folder on the client"},
            "pid": {"type": "integer", "description": "Process of run.sh, 0 if none"},
            "killed": {"type": "boolean", "description": "Its termination was requested"},
            "exit_code": {"type": "integer", "nullable": True},
            "message": {"type": "string", "description": "Reason for the status"},
        },
        "example": {
            "id": 1790000000,
            "input": {},
            "status": "Prepared",
            "loc": "/opt/data/payloads/6f1c6f0e-7b0e-4a53-9b57-0c8d4f0a3f11",
            "pid": 0,
            "killed": False,
            "exit_code": None,
            "message": "",
        },
    },
}


def payload_of(request: web.Request, row: PayloadRow) -> Payload:
    """Return the message about a payload."""
    return Payload(
        id=row.id,
        status=row.reported_status,
        loc=str(request.app[keys.WORKSPACES].of(row.uuid).root),
        pid=request.app[keys.RUNNER].pid(row.id),
        killed=row.killed,
        exit_code=row.exit_code,
        message=row.message,
        run_s=msgspec.UNSET if row.run_s is None else row.run_s,
    )


def submission_key(request: web.Request) -> str | None:
    """Return the ``Idempotency-Key`` of a submission, None if it has none. Raises ``BadRequest``.

    Keys are logged, and sent back in headers.
    """
    key = request.headers.get(IDEMPOTENCY_KEY)
    if key is not None and not _KEY.fullmatch(key):
        raise BadRequest(
            f"Invalid {IDEMPOTENCY_KEY}, should be 1 to {MAX_KEY_LENGTH} printable ASCII characters"
        )
    return key


def error_body(_: web.Request | None, error: Exception | None, message: str) -> bytes:
    """Return the body of an error."""
    code = error.code if isinstance(error, DomainError) else ""
    return encode(ErrorPayload(message, code=code))


def payload_id(request: web.Request) -> int:
    """Return the ``{id}`` of the path. Raises ``BadRequest``."""
    return payload_id_of(request.match_info["id"])


def payload_id_of(text: str) -> int:
    """Convert ``text`` to a payload id. Raises ``BadRequest``."""
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS):
        raise BadRequest(f"Invalid payload id {text[:40]!r}, should be a 32-bit number")
    return int(text)
