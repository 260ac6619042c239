"""Routes about arrays of jobs: state, results of all tasks, termination."""

from http import HTTPStatus

from aiohttp import hdrs, web

from job_orchestrator.common.web.answers import json_response
from job_orchestrator.common.web.streaming import send, started
from job_orchestrator.server import keys
from job_orchestrator.server.web.parameters import job_id, wait_s

ZIP = "application/zip"


async def array(request: web.Request) -> web.Response:
    """Return an array; with ``wait``, when all of its tasks have ended."""
    found = await request.app[keys.ARRAYS].state(job_id(request), wait_s(request))
    return json_response(found)


async def download_array(request: web.Request) -> web.StreamResponse:
    """Return the results of all tasks that have completed, as one ZIP."""
    number = job_id(request)
    blocks = await request.app[keys.ARRAYS].archive(number)
    name = f'attachment; filename="array-{number}-results.zip"'
    response = web.StreamResponse(headers={hdrs.CONTENT_DISPOSITION: name})
    response.content_type = ZIP
    return await send(request, response, await started(blocks))


async def terminate_array(request: web.Request) -> web.Response:
    """Terminate all tasks of an array."""
    ended = await request.app[keys.ARRAYS].terminate(job_id(request))
    return json_response(ended, status=HTTPStatus.ACCEPTED if ended.unended else HTTPStatus.OK)
