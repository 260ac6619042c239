"""Route with the event stream."""

from collections.abc import AsyncGenerator

from aiohttp import web

from job_orchestrator.client import keys
from job_orchestrator.common.protocol.sse import CONTENT_TYPE, KEEP_ALIVE
from job_orchestrator.common.runtime.bounded_queue import SubscriberQueue
from job_orchestrator.common.web.streaming import send, stream_response

KEEP_ALIVE_S = 5.0


async def events(request: web.Request) -> web.StreamResponse:
    """Stream the changes of payloads and of the load."""
    with request.app[keys.EVENTS].subscribed() as backlog:
        return await send(request, stream_response(CONTENT_TYPE), _blocks(backlog))


async def _blocks(backlog: SubscriberQueue[bytes]) -> AsyncGenerator[bytes, None]:
    while (events := await backlog.next(KEEP_ALIVE_S)) is not None:
        yield b"".join(events) or KEEP_ALIVE
