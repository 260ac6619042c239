"""Who may ask: jo-server alone, where it has a token to show."""

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from orchestrator_common.bearer import same_token, token_of
from orchestrator_common.errors import Unauthorized

OPEN = frozenset({"/health"})
"""For monitors. Everything else, what is no route at all included, takes the token."""


def server_only(client_token: str | None) -> Middleware:
    """Refuse requests that don't show ``client_token``. None lets everybody in."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        if client_token is not None and not _is_open(request):
            shown = token_of(request.headers.get(hdrs.AUTHORIZATION))
            if shown is None or not same_token(shown, client_token):
                raise Unauthorized("Only jo-server may ask here: CLIENT_TOKEN must be the same")
        return await handler(request)

    return guard


def _is_open(request: web.Request) -> bool:
    resource = request.match_info.route.resource
    return resource is not None and resource.canonical in OPEN
