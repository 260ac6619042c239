"""POST /kill/{id}."""

import msgspec
from aiohttp import web

from job_orchestrator.client import keys
from job_orchestrator.client.web.answers import payload_id, payload_of
from job_orchestrator.common.errors import BadRequest
from job_orchestrator.common.protocol.headers import IDEMPOTENCY_KEY
from job_orchestrator.common.web.answers import json_response


async def kill(request: web.Request) -> web.Response:
    """End a payload.

    ---
    summary: End a payload
    description: >-
      On return nothing of it runs any more. One that has not started never does; one that has
      ended stays what it was, as the answer shows.
    tags: [payloads]
    parameters:
      - {name: id, in: path, required: true, schema: {type: integer}}
    responses:
      "200":
        description: The payload as it is now
        content:
          application/json:
            schema: {$ref: "#/components/schemas/Payload"}
      "404":
        description: There is no such payload
      "500":
        description: Some of its processes resist being ended
    """
    return await _killed(request, payload_id(request))


async def kill_key(request: web.Request) -> web.Response:
    """End the payload of a key, or let it never run.

    ---
    summary: End the payload that was, or will be, submitted with an Idempotency-Key
    description: >-
      For a server that does not know whether its submit has arrived. One that arrives later is
      Killed from the beginning.
    tags: [payloads]
    parameters:
      - {name: Idempotency-Key, in: header, required: true, schema: {type: string}}
    responses:
      "200":
        description: The payload as it is now
        content:
          application/json:
            schema: {$ref: "#/components/schemas/Payload"}
      "400":
        description: There is no Idempotency-Key
      "500":
        description: Some of its processes resist being ended
    """
    key = request.headers.get(IDEMPOTENCY_KEY)
    if not key:
        raise BadRequest(
            f"Give the payload's id, or the {IDEMPOTENCY_KEY} that it was submitted with"
        )
    return await _killed(request, (await request.app[keys.INTAKE].payload_of(key)).id)


async def _killed(request: web.Request, number: int) -> web.Response:
    row, was_ended = await request.app[keys.RUNNER].kill(number)
    payload = payload_of(request, row)
    if not was_ended:
        told = f"Payload {row.id} had already ended as {row.status}. {row.message}".strip()
        payload = msgspec.structs.replace(payload, message=told)
    return json_response(payload)
