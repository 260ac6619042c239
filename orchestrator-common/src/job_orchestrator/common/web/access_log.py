"""What is logged of each request."""

import asyncio
import logging
from functools import partial

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger

from job_orchestrator.common.logs.context import REQUEST_ID
from job_orchestrator.common.web.request_ids import request_id_of


class AccessLog(AbstractAccessLogger):
    """One line for each request.

    Nothing that a request carries in headers or query is part of it: no Authorization, no token.
    """

    @property
    def enabled(self) -> bool:
        """Spares the work when nobody reads it."""
        return self.logger.isEnabledFor(logging.INFO)

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        """Log a request that was answered in ``time`` seconds."""
        request_id = request_id_of(request)
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
        # Other answers of this moment go first: a line costs as much as a small one of those.
        asyncio.get_running_loop().call_soon(write)
