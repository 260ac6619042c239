"""Who may use which route: the one place where that stands.

Handlers can't forget it. A route about one job (``{id}``) is checked here before its handler runs,
and a route that no table names is for administrators alone. Handlers of ``OWN`` routes ask
``request[keys.PRINCIPAL]`` whose jobs they may take or list.
"""

from contextlib import AbstractContextManager
from functools import partial

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from job_orchestrator.common.errors import Forbidden
from job_orchestrator.common.protocol.bearer import bearer_token
from job_orchestrator.common.web.openapi import DOCUMENT_PATH, UI_PATH
from job_orchestrator.server import keys
from job_orchestrator.server.auth.principal import Principal
from job_orchestrator.server.errors import JobNotFound
from job_orchestrator.server.web.parameters import job_id

DASHBOARD = "/dashboard"
METRICS = "/metrics"

OPEN = frozenset(
    {"/", "/health", "/swagger", UI_PATH.rstrip("/"), UI_PATH, DOCUMENT_PATH, DASHBOARD}
)
"""For everybody: they tell nothing of any job."""

OPEN_BELOW = (UI_PATH, f"{DASHBOARD}/")
"""Static files, for everybody."""

SHARED = frozenset({"/whoami", "/services"})
"""For every token, whosever."""

OWN = frozenset({"/upload", "/jobs", "/events"})
"""For every token; the handler narrows them to the jobs of the token's user."""

ADMIN = frozenset({"/clients", "/stats", METRICS})
"""Named for the sake of the test that every route is named; what isn't is here too."""


def of_one_job(path: str) -> bool:
    """Whether a route is about one job: for its user, and 404 for others."""
    return "{id}" in path


def is_open(path: str, *, metrics_open: bool = False) -> bool:
    """Whether a route takes no token."""
    return path in OPEN or path.startswith(OPEN_BELOW) or (metrics_open and path == METRICS)


@web.middleware
async def access(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Find out who asks, and refuse what they may not do; needs ``TOKENS`` and ``SUBMISSION``."""
    resource = request.match_info.route.resource
    path = "" if resource is None else resource.canonical
    if resource is not None and is_open(path, metrics_open=_metrics_open(request)):
        return await handler(request)
    tokens = request.app[keys.TOKENS]
    principal = await tokens.principal(bearer_token(request.headers.get(hdrs.AUTHORIZATION)))
    request[keys.PRINCIPAL] = principal
    if resource is not None and not principal.is_admin:
        await _check(request, path, principal)
    with while_token_is_valid(request):
        return await handler(request)


def while_token_is_valid(request: web.Request) -> AbstractContextManager[None]:
    """Cut the request off when its token is revoked, or expires, within the block."""
    shown = bearer_token(request.headers.get(hdrs.AUTHORIZATION))
    return request.app[keys.TOKENS].in_use(shown, partial(_cut_off, request))


async def _check(request: web.Request, path: str, principal: Principal) -> None:
    """Raise ``JobNotFound`` or ``Forbidden`` for what a user may not do."""
    if of_one_job(path):
        # Another's job is answered as one that doesn't exist is: ids are not to be found out.
        job = await request.app[keys.SUBMISSION].store.get(job_id(request))
        if not principal.owns(job.user_id):
            raise JobNotFound(job.id)
    elif path not in SHARED and path not in OWN:
        raise Forbidden("Only an administrator's token may ask for this")


def _metrics_open(request: web.Request) -> bool:
    return request.app[keys.SETTINGS].metrics_open


def _cut_off(request: web.Request) -> None:
    """The token of a request that is under way was revoked, or has expired."""
    # As aiohttp does where it cancels handlers whose peer has gone.
    request.task.cancel()
    if request.transport is not None:
        request.transport.abort()
