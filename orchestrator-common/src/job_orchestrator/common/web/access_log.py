"""The access log: one record for each request."""

import asyncio
import logging
from functools import partial

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger

from job_orchestrator.common.logs.context import REQUEST_ID
from job_orchestrator.common.web.request_ids import request_id_of


class AccessLog(AbstractAccessLogger):
    """Logs each request in one line.

    Headers and query are left out, so that no token gets into the log.
    """

    @property
    def enabled(self) -> bool:
        """True if the log level lets these records through; otherwise aiohttp skips the work."""
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
        # Logged after the other responses of this iteration of the loop, because a record costs
        # as much as a small response.
        asyncio.get_running_loop().call_soon(write)
