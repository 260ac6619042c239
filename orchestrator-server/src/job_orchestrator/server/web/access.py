"""Route authorization: one table says which principals may use which route.

The middleware applies the table before any handler runs, so that a handler can't forget it. A route
that is not in the table is for administrators.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from enum import Enum
from functools import partial

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from job_orchestrator.common.errors import Forbidden
from job_orchestrator.common.protocol.bearer import bearer_token
from job_orchestrator.common.web.openapi import DOCUMENT_PATH, UI_PATH
from job_orchestrator.server import keys
from job_orchestrator.server.errors import JobNotFound
from job_orchestrator.server.model import MAX_JOB_ID, JobFilter, Principal
from job_orchestrator.server.web.parameters import PRINCIPAL, job_id

CONNECT = "/connect"
DASHBOARD = "/dashboard"
METRICS = "/metrics"


class Access(Enum):
    """Principals that may use a route."""

    OPEN = "everybody, also without a token: the route reveals nothing about any job"
    ALL_USERS = "the owner of any token"
    OWN_JOBS = "the owner of any token, for whose jobs (PRINCIPAL) the handler narrows it"
    ONE_JOB = "the user of the job in the path"
    CLIENT = "the owner of a client's token, and everybody if no tokens are configured"
    ADMIN = "administrators"


TABLE: Mapping[str, Access] = {
    "/": Access.OPEN,
    "/health": Access.OPEN,
    DASHBOARD: Access.OPEN,
    "/sign-in": Access.OPEN,
    "/swagger": Access.OPEN,
    UI_PATH.rstrip("/"): Access.OPEN,
    DOCUMENT_PATH: Access.OPEN,
    "/whoami": Access.ALL_USERS,
    "/services": Access.ALL_USERS,
    "/upload": Access.OWN_JOBS,
    "/jobs": Access.OWN_JOBS,
    "/events": Access.OWN_JOBS,
    "/jobs/{id}/explanation": Access.ADMIN,
    "/clients": Access.ADMIN,
    "/users": Access.ADMIN,
    "/clients/{name}": Access.ADMIN,
    "/clients/{name}/drain": Access.ADMIN,
    "/clients/{name}/resume": Access.ADMIN,
    "/stats": Access.ADMIN,
    "/pauses": Access.ADMIN,
    "/pause": Access.ADMIN,
    "/resume": Access.ADMIN,
    METRICS: Access.ADMIN,
    CONNECT: Access.CLIENT,
}
"""Access by route. Administrators may use all routes but ``CONNECT``.

Static files (``OPEN_BELOW``) are not listed, nor are routes about one job (``{id}`` in the path)
that its user may use.
"""

OPEN_BELOW = (UI_PATH, f"{DASHBOARD}/")
"""Prefixes of static files, without a token."""


def access_of(path: str) -> Access:
    """Return who may use a route. ``path`` is its canonical path, with ``{id}`` for a job."""
    if path.startswith(OPEN_BELOW):
        return Access.OPEN
    if "{id}" in path:
        return TABLE.get(path, Access.ONE_JOB)
    return TABLE.get(path, Access.ADMIN)


def is_open(path: str, *, metrics_open: bool = False) -> bool:
    """Return whether a route requires no token."""
    return access_of(path) is Access.OPEN or (metrics_open and path == METRICS)


@web.middleware
async def access(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Identify the principal and check that it may use the route.

    Needs ``AUTHENTICATION`` and ``SUBMISSION``.
    """
    resource = request.match_info.route.resource
    path = "" if resource is None else resource.canonical
    if resource is not None and is_open(path, metrics_open=_metrics_open(request)):
        return await handler(request)
    token = bearer_token(request.headers.get(hdrs.AUTHORIZATION))
    principal = await request.app[keys.AUTHENTICATION].principal(token)
    request[PRINCIPAL] = principal
    if path == CONNECT:
        _check_client(principal)
        # The handler ends the tunnel with a reason when its token is revoked.
        return await handler(request)
    if resource is not None and not principal.is_admin:
        await _check(request, path, principal)
    with while_token_is_valid(request):
        return await handler(request)


def while_token_is_valid(request: web.Request) -> AbstractContextManager[None]:
    """Abort the request if its token is revoked or expires within the block."""
    token = bearer_token(request.headers.get(hdrs.AUTHORIZATION))
    return request.app[keys.AUTHENTICATION].in_use(token, partial(_abort, request))


def _check_client(principal: Principal) -> None:
    """Raise ``Forbidden`` if a principal may not register as a client."""
    if principal.authenticated and principal.grant is None:
        raise Forbidden(
            "This token is not that of a client: create one with jo-server token create --client"
            " --services NAME,…"
        )


async def _check(request: web.Request, path: str, principal: Principal) -> None:
    """Raise ``JobNotFound`` or ``Forbidden`` if a user, or a client, may not use the route."""
    if principal.grant is not None:
        raise Forbidden("This token is that of a client, which may only register itself")
    match access_of(path):
        case Access.ALL_USERS | Access.OWN_JOBS:
            return
        case Access.ONE_JOB:
            await _check_owner(request, job_id(request), principal)
        case _:
            raise Forbidden("This route is for administrators; the token is that of a user")


async def _check_owner(request: web.Request, number: int, principal: Principal) -> None:
    """Raise ``JobNotFound`` unless the job exists and the principal owns it.

    Ids must not be discoverable, by the time of the answer either: ``JobStore.get`` is faster for
    recent jobs, those of other users included. Here only jobs of the principal are read, so a job
    of another user takes the same path as one that does not exist.
    """
    lists = request.app[keys.SUBMISSION].store.lists
    before = min(number + 1, MAX_JOB_ID)
    own = await lists.page(JobFilter(user_id=principal.user_id), before, 1)
    if [job.id for job in own] != [number]:
        raise JobNotFound(number)


def _metrics_open(request: web.Request) -> bool:
    return request.app[keys.SETTINGS].metrics_open


def _abort(request: web.Request) -> None:
    """Abort a request whose token was revoked or has expired."""
    # aiohttp cancels the handler of a disconnected peer in the same way.
    request.task.cancel()
    if request.transport is not None:
        request.transport.abort()
