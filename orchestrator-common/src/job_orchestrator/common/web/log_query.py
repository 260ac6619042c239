"""Query and response of the routes that serve script output, on both services."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from job_orchestrator.common.errors import BadRequest
from job_orchestrator.common.web.streaming import stream_response

STREAMS = ("stdout", "stderr")
_MAX_DIGITS = 18

PARAMETERS: Mapping[str, Any] = {
    "stream": {
        "name": "stream",
        "in": "query",
        "schema": {"type": "string", "enum": list(STREAMS), "default": "stdout"},
    },
    "offset": {
        "name": "offset",
        "in": "query",
        "description": "Bytes",
        "schema": {"type": "integer", "default": 0},
    },
    "follow": {
        "name": "follow",
        "in": "query",
        "schema": {"type": "integer", "enum": [0, 1], "default": 0},
    },
}
"""The query parameters, for the OpenAPI document."""


@dataclass(frozen=True)
class LogQuery:
    """The requested stream, the first byte, and whether to follow the stream to its end."""

    stream: str
    offset: int
    follow: bool


def log_query(request: web.Request) -> LogQuery:
    """Read the query of a request. Raises ``BadRequest``."""
    stream = request.query.get("stream", "stdout")
    if stream not in STREAMS:
        raise BadRequest(f"Invalid stream {stream[:40]!r}, should be stdout or stderr")
    offset = request.query.get("offset", "0")
    if not (offset.isascii() and offset.isdigit() and len(offset) <= _MAX_DIGITS):
        raise BadRequest(f"Invalid offset {offset[:40]!r}, should be a number of bytes")
    follow = request.query.get("follow", "0")
    if follow not in ("0", "1"):
        raise BadRequest(f"Invalid follow {follow[:40]!r}, should be 0 or 1")
    return LogQuery(stream, int(offset), follow == "1")


def log_response() -> web.StreamResponse:
    """Create an empty response that browsers never interpret as a page."""
    response = stream_response("text/plain")
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.charset = "utf-8"
    return response
