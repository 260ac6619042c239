"""How large the body of a request may be that is no upload."""

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from orchestrator_common.errors import DomainError

MAX_BODY_BYTES = 1 << 16
"""Of a request that is no upload."""


class BodyTooLarge(DomainError):
    """A body where none, or a small one, is expected."""


def bounded_bodies(*uploads: str) -> Middleware:
    """Refuse a body of more than ``MAX_BODY_BYTES`` on any path but ``uploads``, before it comes.

    One that doesn't tell its length is refused when it is read (``client_max_size``); what no
    handler reads, aiohttp reads for a few seconds and then closes the connection.
    """

    @web.middleware
    async def bound(request: web.Request, handler: Handler) -> web.StreamResponse:
        if (request.content_length or 0) > MAX_BODY_BYTES and request.path not in uploads:
            raise BodyTooLarge(f"This takes no body of more than {MAX_BODY_BYTES} bytes")
        return await handler(request)

    return bound
