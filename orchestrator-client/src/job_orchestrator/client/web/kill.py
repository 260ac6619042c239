"""Routes to terminate payloads."""

import msgspec
from aiohttp import web

from job_orchestrator.client import keys
from job_orchestrator.client.web.answers import payload_id, payload_of, submission_key
from job_orchestrator.common.errors import BadRequest
from job_orchestrator.common.protocol.headers import IDEMPOTENCY_KEY
from job_orchestrator.common.web.answers import json_response


async def kill(request: web.Request) -> web.Response:
    """Terminate a payload."""
    return await _kill(request, payload_id(request))


async def kill_key(request: web.Request) -> web.Response:
    """Terminate the payload of a key, or prevent that it ever runs."""
    key = submission_key(request)
    if key is None:
        raise BadRequest(
            f"The payload is not specified: send its id, or the {IDEMPOTENCY_KEY} of its submission"
        )
    return await _kill(request, (await request.app[keys.INTAKE].payload_of(key)).id)


async def _kill(request: web.Request, number: int) -> web.Response:
    row, was_ended = await request.app[keys.RUNNER].kill(number)
    payload = payload_of(request, row)
    if not was_ended:
        message = f"Payload {row.id} had already ended as {row.status}. {row.message}".strip()
        payload = msgspec.structs.replace(payload, message=message)
    return json_response(payload)
