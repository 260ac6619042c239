"""GET /download/{id} and GET /download_partial/{id}."""

from collections.abc import AsyncGenerator

from aiohttp import web

from job_orchestrator.common.messages import JobAnswer
from job_orchestrator.common.status import JobStatus
from job_orchestrator.common.web.answers import json_response
from job_orchestrator.common.web.streaming import begun, send
from job_orchestrator.server import keys
from job_orchestrator.server.web.parameters import job_id, wait_s
from job_orchestrator.server.web.results import ZIP, attachment, results


async def download(request: web.Request) -> web.StreamResponse:
    """Give the results of a job, or its state.

    ---
    summary: Results of a job, or its state
    description: >-
      A ZIP once the job is Completed, JSON in any other state: look at Content-Type. With wait the
      answer comes when the job has ended, at the latest after so many seconds. Ranges are served.
    tags: [jobs]
    parameters:
      - {name: id, in: path, required: true, schema: {type: integer}, example: 1}
      - name: wait
        in: query
        description: Seconds to wait for the end of the job
        schema: {type: number, minimum: 0, maximum: 60}
    responses:
      "200":
        description: The results, or the state and the reason for it
        content:
          application/zip:
            schema: {type: string, format: binary}
          application/json:
            schema: {$ref: "#/components/schemas/JobAnswer"}
            example: {id: 1, status: Running, message: run.sh is executing}
      "206":
        description: The range of the results that was asked for
        content:
          application/zip:
            schema: {type: string, format: binary}
      "400":
        description: The id or wait is no such number
      "404":
        description: There is no such job
        content:
          application/json:
            example: {id: 7, status: Unknown, message: Job 7 not found}
    """
    queries = request.app[keys.QUERIES]
    job = await queries.wait_for_end(job_id(request), wait_s(request))
    if job.status is JobStatus.COMPLETED:
        return await results(request, job)
    return json_response(JobAnswer(job.id, job.status, await queries.explain(job)))


async def download_partial(request: web.Request) -> web.StreamResponse:
    """Give what there is of a job's output.

    ---
    summary: What there is of a job's output
    description: >-
      The work folder of a running job as it is now, or the kept output of one that ended, failed
      or terminated ones included.
    tags: [jobs]
    parameters:
      - {name: id, in: path, required: true, schema: {type: integer}, example: 1}
    responses:
      "200":
        description: The output so far
        content:
          application/zip:
            schema: {type: string, format: binary}
      "404":
        description: There is no such job, or it was never given to a client
      "502":
        description: The job's client can't be reached or fails
      "503":
        description: The job's client has its hands full, with copies of this output perhaps
        headers:
          Retry-After: {description: Seconds, schema: {type: integer}}
      "504":
        description: The job's client doesn't answer in time
    """
    job = await request.app[keys.QUERIES].store.get(job_id(request))
    if job.has_output:
        return await results(request, job)
    client, dest_id = request.app[keys.RESULTS].payload_of(job)
    response = web.StreamResponse(headers=attachment(job, "partial"))
    response.content_type = ZIP

    async def blocks() -> AsyncGenerator[bytes, None]:
        async with client.transport.open_partial(dest_id) as output:
            response.content_length = output.size
            yield b""  # it is there
            async for block in output.blocks:
                yield block

    return await send(request, response, await begun(blocks()))
