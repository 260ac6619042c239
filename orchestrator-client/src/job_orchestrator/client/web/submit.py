"""Route to submit a payload."""

import math

from aiohttp import hdrs, web

from job_orchestrator.client import keys
from job_orchestrator.client.web.answers import payload_of, submission_key
from job_orchestrator.common.errors import BadRequest
from job_orchestrator.common.protocol.durations import MAX_NUMBER
from job_orchestrator.common.protocol.headers import TIME_LIMIT
from job_orchestrator.common.web.answers import json_response


async def submit(request: web.Request) -> web.Response:
    """Accept a payload."""
    row = await request.app[keys.INTAKE].submit(
        request.content,
        request.headers.get(hdrs.CONTENT_TYPE, ""),
        submission_key(request),
        _time_limit_s(request),
    )
    return json_response(payload_of(request, row))


def _time_limit_s(request: web.Request) -> float | None:
    """Return the time limit of the script in seconds, None if unlimited. Raises ``BadRequest``."""
    text = request.headers.get(TIME_LIMIT)
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < MAX_NUMBER:  # false for nan
        raise BadRequest(f"Invalid Time-Limit {text[:40]!r}, should be a number of seconds")
    return seconds
