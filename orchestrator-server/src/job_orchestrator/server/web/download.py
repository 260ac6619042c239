"""Routes to download the results of a job, or the output that it has so far."""

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
    """Return the results of a completed job, or the state of any other."""
    queries = request.app[keys.QUERIES]
    job = await queries.wait_for_end(job_id(request), wait_s(request))
    if job.status is JobStatus.COMPLETED:
        return await results(request, job)
    reason = await queries.explain(job, details=request[keys.PRINCIPAL].is_admin)
    return json_response(JobAnswer(job.id, job.status, reason))


async def download_partial(request: web.Request) -> web.StreamResponse:
    """Return the output that a job has so far."""
    job = await request.app[keys.QUERIES].store.get(job_id(request))
    if job.has_output:
        return await results(request, job)
    client, dest_id = request.app[keys.RESULTS].payload_of(job)
    response = web.StreamResponse(headers=attachment(job, "partial"))
    response.content_type = ZIP

    async def blocks() -> AsyncGenerator[bytes, None]:
        async with client.transport.open_partial(dest_id) as output:
            response.content_length = output.size
            yield b""  # the client has answered: errors from here on are not answers
            async for block in output.blocks:
                yield block

    return await send(request, response, await begun(blocks()))
