"""POST /submit."""

import math

from aiohttp import hdrs, web

from job_orchestrator.client import keys
from job_orchestrator.client.web.answers import payload_of
from job_orchestrator.common.errors import BadRequest
from job_orchestrator.common.protocol.headers import IDEMPOTENCY_KEY, TIME_LIMIT
from job_orchestrator.common.web.answers import json_response


async def submit(request: web.Request) -> web.Response:
    """Take a payload in.

    ---
    summary: Take a payload in
    description: >-
      Every part with a file name is a file; the part's name is its path if its last component is
      the file name. One of them is run.sh. A repeat with the same Idempotency-Key answers the same
      payload and runs nothing. What runs for longer than Time-Limit is ended, and Failed.
    tags: [payloads]
    parameters:
      - {name: Idempotency-Key, in: header, schema: {type: string}}
      - {name: Time-Limit, in: header, description: Seconds, schema: {type: number}}
    requestBody:
      required: true
      content:
        multipart/form-data:
          schema:
            type: object
            required: [file]
            properties:
              file: {type: array, items: {type: string, format: binary}}
    responses:
      "200":
        description: It waits for a slot
        content:
          application/json:
            schema: {$ref: "#/components/schemas/Payload"}
      "400":
        description: The message says what is wrong; nothing was kept
      "503":
        description: The client stops; nothing was kept
        headers:
          Retry-After: {description: Seconds, schema: {type: integer}}
      "507":
        description: The disk is full; nothing was kept
    """
    row = await request.app[keys.INTAKE].submit(
        request.content,
        request.headers.get(hdrs.CONTENT_TYPE, ""),
        request.headers.get(IDEMPOTENCY_KEY),
        _time_limit_s(request),
    )
    return json_response(payload_of(request, row))


def _time_limit_s(request: web.Request) -> float | None:
    """How long the script may run; None: as long as it takes. Raises ``BadRequest``."""
    text = request.headers.get(TIME_LIMIT)
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds > 0):
        raise BadRequest(f"Invalid Time-Limit {text[:40]!r}, should be a number of seconds")
    return seconds
