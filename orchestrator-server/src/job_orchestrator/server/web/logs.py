"""GET /jobs/{id}/logs."""

import asyncio

from aiohttp import web

from job_orchestrator.common.web.log_query import log_query, log_response
from job_orchestrator.common.web.streaming import begun, send
from job_orchestrator.server import keys
from job_orchestrator.server.web.parameters import job_id


async def job_logs(request: web.Request) -> web.StreamResponse:
    """Give what a job's script says.

    ---
    summary: Standard output or error of a job
    description: >-
      The bytes from offset on, exactly as they were written: live from its client while the job
      runs, afterwards from its kept output. With follow the answer goes on until the job has ended
      (or is run again); of a queued job it waits for the start.
    tags: [jobs]
    parameters:
      - {name: id, in: path, required: true, schema: {type: integer}, example: 1}
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
        description: There is no such job, or its files were removed
      "502":
        description: The job's client can't be reached or fails
      "503":
        description: It is being read by others already, as often as it may be at once
        headers:
          Retry-After: {description: Seconds, schema: {type: integer}}
        content:
          application/json:
            schema: {$ref: "#/components/schemas/JobAnswer"}
      "504":
        description: The job's client doesn't answer in time
    """
    logs, response = request.app[keys.JOB_LOGS], log_response()
    asked = log_query(request)
    try:
        async with asyncio.timeout(None) as bound:
            with logs.expiring_at_stop(bound):
                blocks = logs.read(
                    job_id(request), asked.stream, offset=asked.offset, follow=asked.follow
                )
                return await send(request, response, await begun(blocks))
    except TimeoutError:
        return response  # the server stops
