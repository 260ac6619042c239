"""Who may ask: jo-server alone, where it has a token to show."""

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from job_orchestrator.common.errors import Forbidden, Unauthorized
from job_orchestrator.common.protocol.bearer import bearer_token, tokens_equal

OPEN = frozenset({"/health"})
"""For monitors. Everything else, what is no route at all included, takes the token."""


def server_only(client_token: str | None) -> Middleware:
    """Refuse requests that don't show ``client_token``; None lets everybody in but other web pages.

    A browser sends a form of any page to any address that it reaches: without this, whoever opens a
    web page on a compute machine could run that page's script there.
    """

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        if _comes_from_another_page(request):
            raise Forbidden("Web pages of other origins may not ask here")
        if client_token is not None and not _takes_no_token(request):
            shown = bearer_token(request.headers.get(hdrs.AUTHORIZATION))
            if shown is None or not tokens_equal(shown, client_token):
                raise Unauthorized("Only jo-server may ask here: CLIENT_TOKEN must be the same")
        return await handler(request)

    return guard


def is_open(path: str) -> bool:
    """Whether a route takes no token."""
    return path in OPEN


def _takes_no_token(request: web.Request) -> bool:
    resource = request.match_info.route.resource
    return resource is not None and is_open(resource.canonical)


def _comes_from_another_page(request: web.Request) -> bool:
    """Whether a browser says so; nothing but a browser sends an Origin."""
    origin = request.headers.get(hdrs.ORIGIN)
    return origin is not None and origin.partition("://")[2].lower() != request.host.lower()
