"""Request ids, and the access log, which has one record for each request.

``X-Request-Id`` identifies a request in the logs of all services that handled it.
"""

import asyncio
import itertools
import logging
import re
import secrets
from functools import partial

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger
from aiohttp.typedefs import Handler

from job_orchestrator.common.logs.context import REQUEST_ID, logging_about
from job_orchestrator.common.protocol.headers import X_REQUEST_ID

_SAFE = re.compile(r"[A-Za-z0-9._:-]{1,128}")
"""Ids that can't be confused with another field of a log record."""

_ID = web.RequestKey("request_id", str)

_PROCESS = secrets.token_hex(8)
_numbers = itertools.count(secrets.randbits(32))


def _new_id() -> str:
    """Return an id that no other request has. Nothing depends on its being hard to guess."""
    return f"{_PROCESS}{next(_numbers):016x}"


def add_request_ids(app: web.Application) -> None:
    """Give every request an id, the one in its header or a new one, and return it in the response.

    Must be called before other middlewares are added, so that their log records have the id, too.
    """
    app.middlewares.append(_identify)
    app.on_response_prepare.append(_echo)


@web.middleware
async def _identify(request: web.Request, handler: Handler) -> web.StreamResponse:
    given = request.headers.get(X_REQUEST_ID, "")
    request[_ID] = given if _SAFE.fullmatch(given) else _new_id()
    with logging_about(**{REQUEST_ID: request[_ID]}):
        return await handler(request)


async def _echo(request: web.Request, response: web.StreamResponse) -> None:
    request_id = request.get(_ID)
    if request_id is not None:
        response.headers[X_REQUEST_ID] = request_id


class AccessLog(AbstractAccessLogger):
    """Logs each request in one line.

    Headers and query are left out, so that no token gets into the log.
    """

    @property
    def enabled(self) -> bool:
        """True if the log level includes these records; otherwise aiohttp skips the work."""
        return self.logger.isEnabledFor(logging.INFO)

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        """Log a request that was answered in ``time`` seconds."""
        # A request that did not reach the application has no id.
        request_id = request.get(_ID) if isinstance(request, web.Request) else None
        write = partial(
            self.logger.info,
            "%s %s %s %d %d bytes %.1f ms",
            request.remote,
            request.method,
            request.path,
            response.status,
            response.body_length,
            time * 1000,
            extra={"about": {} if request_id is None else {REQUEST_ID: request_id}},
        )
        # Logged after the other responses of this iteration of the loop, because a record costs
        # as much as a small response.
        asyncio.get_running_loop().call_soon(write)
