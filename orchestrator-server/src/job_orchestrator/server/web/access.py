"""Route authorization: one table says which principals may use which route.

The middleware applies the table before any handler runs, so that a handler can't forget it. A route
about one job (``{id}``) is for the user of that job. A route that is not in the table is for
administrators only. Handlers of ``OWN`` routes restrict themselves to the jobs of
``request[keys.PRINCIPAL]``.
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
"""Routes without a token: they reveal nothing about any job."""

OPEN_BELOW = (UI_PATH, f"{DASHBOARD}/")
"""Prefixes of static files, without a token."""

SHARED = frozenset({"/whoami", "/services"})
"""Routes for every token."""

OWN = frozenset({"/upload", "/jobs", "/events"})
"""Routes for every token, restricted by the handler to the jobs of the token's user."""

ADMIN = frozenset({"/clients", "/stats", METRICS})
"""Routes for administrators. Listed so that a test can check that every route is in the table."""


def of_one_job(path: str) -> bool:
    """Return whether a route concerns one job: then other users get 404."""
    return "{id}" in path


def is_open(path: str, *, metrics_open: bool = False) -> bool:
    """Return whether a route requires no token."""
    return path in OPEN or path.startswith(OPEN_BELOW) or (metrics_open and path == METRICS)


@web.middleware
async def access(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Identify the principal and check that it may use the route.

    Needs ``TOKENS`` and ``SUBMISSION``.
    """
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
    """Abort the request if its token is revoked or expires within the block."""
    shown = bearer_token(request.headers.get(hdrs.AUTHORIZATION))
    return request.app[keys.TOKENS].in_use(shown, partial(_cut_off, request))


async def _check(request: web.Request, path: str, principal: Principal) -> None:
    """Raise ``JobNotFound`` or ``Forbidden`` if a user may not use the route."""
    if of_one_job(path):
        # The same answer as for a job that does not exist: ids must not be discoverable.
        job = await request.app[keys.SUBMISSION].store.get(job_id(request))
        if not principal.owns(job.user_id):
            raise JobNotFound(job.id)
    elif path not in SHARED and path not in OWN:
        raise Forbidden("Only an administrator's token may ask for this")


def _metrics_open(request: web.Request) -> bool:
    return request.app[keys.SETTINGS].metrics_open


def _cut_off(request: web.Request) -> None:
    """Abort a request whose token was revoked or has expired."""
    # As aiohttp does to cancel the handler of a peer that has disconnected.
    request.task.cancel()
    if request.transport is not None:
        request.transport.abort()
