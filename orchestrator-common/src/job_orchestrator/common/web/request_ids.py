"""X-Request-Id: one word by which a request is found in the logs of all that had to do with it."""

import re
from uuid import uuid4

from aiohttp import web
from aiohttp.typedefs import Handler

from job_orchestrator.common.logs.context import REQUEST_ID, logging_about
from job_orchestrator.common.protocol.headers import X_REQUEST_ID

_SAFE = re.compile(r"[A-Za-z0-9._:-]{1,128}")
"""What stands in a line of the log as it is, and can't be taken for another of its fields."""

_ID = web.RequestKey("request_id", str)


def add_request_ids(app: web.Application) -> None:
    """Give every request an id, its own or a new one; the answer tells it, errors included.

    To be called before other middlewares are added: what they log is to have it too.
    """
    app.middlewares.append(_identify)
    app.on_response_prepare.append(_echo)


def request_id_of(request: web.BaseRequest) -> str | None:
    """The id of a request; None for one that never reached the application."""
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
