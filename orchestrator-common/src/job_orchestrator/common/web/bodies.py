"""Limits for request bodies: their size, unless they are uploads, and no compression."""

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from job_orchestrator.common.errors import DomainError

MAX_BODY_BYTES = 1 << 16
"""Maximum size of the body of a request that is not an upload."""


class BodyTooLarge(DomainError):
    """The request has a large body where a small one, or none, is expected."""


class CompressedBody(DomainError):
    """The request body has a Content-Encoding."""


def bounded_bodies(*uploads: str) -> Middleware:
    """Create a middleware that refuses a large or compressed body before it is received.

    The limit is ``MAX_BODY_BYTES``, on all paths except ``uploads``. A body without a declared
    length is refused when it is read (``client_max_size``). If no handler reads a body, aiohttp
    reads it for a few seconds and then closes the connection.

    A few compressed bytes can expand a thousandfold. ``run_service`` prevents aiohttp from
    decompressing a body, even to discard it.
    """

    @web.middleware
    async def bound(request: web.Request, handler: Handler) -> web.StreamResponse:
        if (request.content_length or 0) > MAX_BODY_BYTES and request.path not in uploads:
            raise BodyTooLarge(
                f"The body is too large; at most {MAX_BODY_BYTES} bytes are allowed here"
            )
        if hdrs.CONTENT_ENCODING in request.headers and request.body_exists:
            _check_encoding(",".join(request.headers.getall(hdrs.CONTENT_ENCODING)))
        return await handler(request)

    return bound


def _check_encoding(encodings: str) -> None:
    if encodings.strip().lower() not in ("", "identity"):
        raise CompressedBody(
            f"Content-Encoding {encodings[:100]!r} is not supported; send the body without it."
            " Compressed files can be sent as files"
        )
