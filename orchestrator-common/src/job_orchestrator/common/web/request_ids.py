"""X-Request-Id: identifies a request in the logs of all services that handled it."""

import re
from uuid import uuid4

from aiohttp import web
from aiohttp.typedefs import Handler

from job_orchestrator.common.logs.context import REQUEST_ID, logging_about
from job_orchestrator.common.protocol.headers import X_REQUEST_ID

_SAFE = re.compile(r"[A-Za-z0-9._:-]{1,128}")
"""Ids that can't be confused with another field of a log record."""

_ID = web.RequestKey("request_id", str)


def add_request_ids(app: web.Application) -> None:
    """Give every request an id, the one in its header or a new one, and return it in the response.

    Must be called before other middlewares are added, so that their log records have the id, too.
    """
    app.middlewares.append(_identify)
    app.on_response_prepare.append(_echo)


def request_id_of(request: web.BaseRequest) -> str | None:
    """Return the id of a request, None if the request did not reach the application."""
    return request.get(_ID) if isinstance(request, web.Request) else None


@web.middleware
async def _identify(request: web.Request, handler: Handler) -> web.StreamResponse:
    given = request.headers.get(X_REQUEST_ID, "")
    request[_ID] = given if _SAFE.fullmatch(given) else uuid4().hex
    with logging_about(**{REQUEST_ID: request[_ID]}):
        return await handler(request)


async def _echo(request: web.Request, response: web.StreamResponse) -> None:
    known = request.get(_ID)
    if known is not None:
        response.headers[X_REQUEST_ID] = known
