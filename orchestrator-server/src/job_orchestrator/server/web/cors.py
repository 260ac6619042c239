"""Cross-origin requests: which web pages may call this server from a browser (Fetch standard).

Cookies play no part in it: whoever asks shows a token, which a page has to know. So no answer says
``Access-Control-Allow-Credentials``, and ``*`` gives nothing away that a token doesn't.
"""

from collections.abc import Set
from http import HTTPStatus

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

ANY = "*"
METHODS = "GET, POST"
TAKEN_HEADERS = (
    "Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, If-Range,"
    " Last-Event-ID, Range, X-Request-Id"
)
SHOWN_HEADERS = (
    "Accept-Ranges, Content-Disposition, Content-Length, Content-Range, ETag, Location,"
    " Retry-After, WWW-Authenticate, X-Request-Id"
)
PREFLIGHT_AGE_S = 600
"""How long a browser need not ask again."""


def allow_origins(app: web.Application, origins: Set[str]) -> None:
    """Let pages of ``origins`` (``*``: all) read the answers, errors and event streams included.

    Has to be called before other middlewares are added: a preflight carries no token.
    """
    if not origins:
        return

    async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
        _let_read(request, response, origins)

    @web.middleware
    async def preflight(request: web.Request, handler: Handler) -> web.StreamResponse:
        asks = hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers
        if request.method == hdrs.METH_OPTIONS and asks and _allowed(request, origins):
            return _may_be_sent()
        return await handler(request)

    app.middlewares.append(preflight)
    app.on_response_prepare.append(add_headers)


def _allowed(request: web.Request, origins: Set[str]) -> str | None:
    """The origin as the answer is to name it; None if it is not to be let."""
    origin = request.headers.get(hdrs.ORIGIN)
    if origin is None or not origins & {ANY, origin}:
        return None
    return ANY if ANY in origins else origin


def _may_be_sent() -> web.Response:
    return web.Response(
        status=HTTPStatus.NO_CONTENT,
        headers={
            hdrs.ACCESS_CONTROL_ALLOW_METHODS: METHODS,
            hdrs.ACCESS_CONTROL_ALLOW_HEADERS: TAKEN_HEADERS,
            hdrs.ACCESS_CONTROL_MAX_AGE: str(PREFLIGHT_AGE_S),
        },
    )


def _let_read(request: web.Request, response: web.StreamResponse, origins: Set[str]) -> None:
    if ANY not in origins:
        # Also without an origin: a cache must not give such an answer to a page.
        response.headers.add(hdrs.VARY, hdrs.ORIGIN)
    if (origin := _allowed(request, origins)) is not None:
        response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
        response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = SHOWN_HEADERS
