"""Request authorization: only jo-server has the token."""

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from job_orchestrator.common.errors import Unauthorized
from job_orchestrator.common.protocol.bearer import bearer_token, tokens_equal

OPEN = frozenset({"/health"})
"""Routes for monitors, without the token. All other paths require it, unknown ones included."""


def server_only(client_token: str | None) -> Middleware:
    """Create a middleware that requires ``client_token``, if it is not None."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        if client_token is not None and not _is_open_route(request):
            token = bearer_token(request.headers.get(hdrs.AUTHORIZATION))
            if token is None or not tokens_equal(token, client_token):
                raise Unauthorized(
                    "The token is missing or wrong; set the same CLIENT_TOKEN for jo-server and"
                    " jo-client"
                )
        return await handler(request)

    return guard


def is_open(path: str) -> bool:
    """Return whether a route requires no token."""
    return path in OPEN


def _is_open_route(request: web.Request) -> bool:
    resource = request.match_info.route.resource
    return resource is not None and is_open(resource.canonical)
