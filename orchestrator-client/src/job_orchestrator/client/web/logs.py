"""Route with the output of a script."""

from aiohttp import web

from job_orchestrator.client import keys
from job_orchestrator.client.web.answers import payload_id
from job_orchestrator.common.web.log_query import log_query, log_response
from job_orchestrator.common.web.streaming import begun, send


async def logs(request: web.Request) -> web.StreamResponse:
    """Return the standard output or error of a payload."""
    asked = log_query(request)
    output = request.app[keys.SCRIPT_OUTPUT]
    blocks = output.read(payload_id(request), asked.stream, asked.offset, follow=asked.follow)
    return await send(request, log_response(), await begun(blocks))
