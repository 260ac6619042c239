"""What the body of a request may be: how large, unless it is an upload, and not compressed."""

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from job_orchestrator.common.errors import DomainError

MAX_BODY_BYTES = 1 << 16
"""Of a request that is no upload."""


class BodyTooLarge(DomainError):
    """A body where none, or a small one, is expected."""


class CompressedBody(DomainError):
    """A body with a Content-Encoding."""


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


@web.middleware
async def plain_bodies(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse a body that was compressed on the way, before it comes.

    A few bytes of it can be a thousand times as many of ours. ``run_service`` sees to it that
    nobody else unpacks it, not even to throw it away.
    """
    encodings = ",".join(request.headers.getall(hdrs.CONTENT_ENCODING, []))
    if request.body_exists and encodings.strip().lower() not in ("", "identity"):
        raise CompressedBody(
            f"Content-Encoding {encodings[:100]!r} is not taken; send the body as it is, or"
            " compressed files as files"
        )
    return await handler(request)
