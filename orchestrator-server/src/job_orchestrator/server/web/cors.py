"""Cross-origin resource sharing: the web pages that may call this server (Fetch standard).

Cookies are not used; a page must send a token. Therefore no response has
``Access-Control-Allow-Credentials``, and ``*`` grants nothing without a token.
"""

from collections.abc import Set
from http import HTTPStatus

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

ANY = "*"
METHODS = "GET, PATCH, POST"
REQUEST_HEADERS = (
    "Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, If-Range,"
    " Last-Event-ID, Range, X-Request-Id"
)
EXPOSED_HEADERS = (
    "Accept-Ranges, Content-Disposition, Content-Length, Content-Range, ETag, Location,"
    " Retry-After, WWW-Authenticate, X-Request-Id"
)
PREFLIGHT_AGE_S = 600
"""Seconds for which a browser may cache the answer to a preflight."""


def allow_origins(app: web.Application, origins: Set[str]) -> None:
    """Allow pages of ``origins`` (``*``: all) to read the responses, errors and streams included.

    Must be called before other middlewares are added, because a preflight carries no token.
    """
    if not origins:
        return

    async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
        _add_headers(request, response, origins)

    @web.middleware
    async def preflight(request: web.Request, handler: Handler) -> web.StreamResponse:
        is_preflight = (
            request.method == hdrs.METH_OPTIONS
            and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers
        )
        if is_preflight and _allowed(request, origins):
            return _preflight_response()
        return await handler(request)

    app.middlewares.append(preflight)
    app.on_response_prepare.append(add_headers)


def _allowed(request: web.Request, origins: Set[str]) -> str | None:
    """Return the allowed origin as the response names it, None if it is not allowed."""
    origin = request.headers.get(hdrs.ORIGIN)
    if origin is None or not origins & {ANY, origin}:
        return None
    return ANY if ANY in origins else origin


def _preflight_response() -> web.Response:
    return web.Response(
        status=HTTPStatus.NO_CONTENT,
        headers={
            hdrs.ACCESS_CONTROL_ALLOW_METHODS: METHODS,
            hdrs.ACCESS_CONTROL_ALLOW_HEADERS: REQUEST_HEADERS,
            hdrs.ACCESS_CONTROL_MAX_AGE: str(PREFLIGHT_AGE_S),
        },
    )


def _add_headers(request: web.Request, response: web.StreamResponse, origins: Set[str]) -> None:
    if ANY not in origins:
        # Also without an origin: a cache must not serve such a response to a page.
        response.headers.add(hdrs.VARY, hdrs.ORIGIN)
    if (origin := _allowed(request, origins)) is not None:
        response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
        response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = EXPOSED_HEADERS
