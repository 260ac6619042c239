"""Route with the output of a script."""

import asyncio

from aiohttp import web

from job_orchestrator.common.web.log_query import log_query, log_response
from job_orchestrator.common.web.streaming import begun, send
from job_orchestrator.server import keys
from job_orchestrator.server.web.parameters import job_id


async def job_logs(request: web.Request) -> web.StreamResponse:
    """Return the standard output or error of a job."""
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
