"""POST /kill/{id}."""

import msgspec
from aiohttp import web

from orchestrator_client import keys
from orchestrator_client.web.answers import payload_id, payload_of
from orchestrator_common.web import json_response


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
        content:
          application/json:
            schema: {$ref: "#/components/schemas/Payload"}
      "500":
        description: Some of its processes resist being ended
        content:
          application/json:
            schema: {$ref: "#/components/schemas/Payload"}
    """
    row, was_ended = await request.app[keys.RUNNER].kill(payload_id(request))
    payload = payload_of(request, row)
    if not was_ended:
        told = f"Payload {row.id} had already ended as {row.status}. {row.message}".strip()
        payload = msgspec.structs.replace(payload, message=told)
    return json_response(payload)
