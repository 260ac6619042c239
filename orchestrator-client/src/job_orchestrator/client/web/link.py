"""Route that opens the link of a server."""

from aiohttp import web

from job_orchestrator.client import keys
from job_orchestrator.common.protocol.link import MAX_MESSAGE_BYTES
from job_orchestrator.common.web.link_socket import LinkSocket

HEARTBEAT_S = 20.0
"""A ping is sent after so long without a message; the link ends if no answer follows."""


async def link(request: web.Request) -> web.StreamResponse:
    """Open a WebSocket and serve the link on it."""
    socket = web.WebSocketResponse(
        heartbeat=HEARTBEAT_S, max_msg_size=MAX_MESSAGE_BYTES, compress=False
    )
    await socket.prepare(request)
    await request.app[keys.LINKS].serve(LinkSocket(socket))
    return socket
