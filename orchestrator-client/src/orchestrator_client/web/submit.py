"""POST /submit."""

from aiohttp import hdrs, web

from orchestrator_client import keys
from orchestrator_client.web.answers import payload_of
from orchestrator_common.web import json_response

KEY_HEADER = "Idempotency-Key"


async def submit(request: web.Request) -> web.Response:
    """Take a payload in.

    ---
    summary: Take a payload in
    description: >-
      Every part with a file name is a file; the part's name is its path if its last component is
      the file name. One of them is run.sh. A repeat with the same Idempotency-Key answers the same
      payload and runs nothing.
    tags: [payloads]
    parameters:
      - {name: Idempotency-Key, in: header, schema: {type: string}}
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
        content:
          application/json:
            schema: {$ref: "#/components/schemas/Payload"}
      "507":
        description: The disk is full; nothing was kept
        content:
          application/json:
            schema: {$ref: "#/components/schemas/Payload"}
    """
    row = await request.app[keys.INTAKE].submit(
        request.content,
        request.headers.get(hdrs.CONTENT_TYPE, ""),
        request.headers.get(KEY_HEADER),
    )
    return json_response(payload_of(request, row))
