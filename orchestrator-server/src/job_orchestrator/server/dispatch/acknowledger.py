"""Acknowledgement of stored results, so that a client can remove its copies."""

import logging
from itertools import islice

from job_orchestrator.common.runtime.fault_injection import Point, reach
from job_orchestrator.server.clients.registry import Client
from job_orchestrator.server.errors import ClientError

logger = logging.getLogger(__name__)

BATCH = 100


class Acknowledger:
    """Acknowledges all results of one client that were stored since the last pass.

    Payloads that are never acknowledged are removed by the client itself after ``MAX_AGE``. Older
    clients, which have no event stream, don't know the request.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    async def run_pass(self) -> None:
        """Acknowledge in batches; a batch that fails is not repeated."""
        pending = self._client.unacknowledged
        if not self._client.pushes:
            pending.clear()
        while pending:
            batch = list(islice(pending, BATCH))
            pending.difference_update(batch)
            try:
                await self._client.transport.acknowledge(batch)
                reach(Point.SERVER_DISCARDED)
            except ClientError as error:
                logger.info("%s", error)
