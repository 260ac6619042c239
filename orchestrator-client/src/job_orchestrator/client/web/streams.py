"""Routes that stream: the events of the client, and the output of a script."""

from collections.abc import AsyncGenerator

from aiohttp import web

from job_orchestrator.client import keys
from job_orchestrator.client.payloads.events import EventStream
from job_orchestrator.client.web.answers import payload_id
from job_orchestrator.common.protocol.sse import CONTENT_TYPE, KEEP_ALIVE
from job_orchestrator.common.runtime.bounded_queue import SubscriberQueue
from job_orchestrator.common.web.log_query import log_query, log_response
from job_orchestrator.common.web.streaming import send, started, stream_response

KEEP_ALIVE_S = 5.0


async def events(request: web.Request) -> web.StreamResponse:
    """Stream the changes of payloads and of the load."""
    hub = request.app[keys.EVENTS]
    stream = EventStream(hub.load)
    with hub.followed_by(stream):
        return await send(request, stream_response(CONTENT_TYPE), _blocks(stream.backlog))


async def logs(request: web.Request) -> web.StreamResponse:
    """Return the standard output or error of a payload."""
    query = log_query(request)
    output = request.app[keys.SCRIPT_OUTPUT]
    blocks = output.read(payload_id(request), query.stream, query.offset, follow=query.follow)
    return await send(request, log_response(), await started(blocks))


async def _blocks(backlog: SubscriberQueue[bytes]) -> AsyncGenerator[bytes, None]:
    while (events := await backlog.next(KEEP_ALIVE_S)) is not None:
        yield b"".join(events) or KEEP_ALIVE
