"""GET /logs/{id}."""

from aiohttp import web

from job_orchestrator.client import keys
from job_orchestrator.client.web.answers import payload_id
from job_orchestrator.common.web.log_query import log_query, log_response
from job_orchestrator.common.web.streaming import begun, send


async def logs(request: web.Request) -> web.StreamResponse:
    """Give what the script says.

    ---
    summary: Standard output or error of run.sh
    description: >-
      The bytes from offset on, exactly as they were written. With follow the answer goes on until
      the payload has ended.
    tags: [payloads]
    parameters:
      - {name: id, in: path, required: true, schema: {type: integer}}
      - {$ref: "#/components/parameters/stream"}
      - {$ref: "#/components/parameters/offset"}
      - {$ref: "#/components/parameters/follow"}
    responses:
      "200":
        description: The output
        content:
          text/plain:
            schema: {type: string}
      "404":
        description: There is no such payload, or its files were removed
    """
    asked = log_query(request)
    output = request.app[keys.SCRIPT_OUTPUT]
    blocks = output.read(payload_id(request), asked.stream, asked.offset, follow=asked.follow)
    return await send(request, log_response(), await begun(blocks))
