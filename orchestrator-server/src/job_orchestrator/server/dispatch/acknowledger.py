"""Tells a client which payloads it may remove: those whose results the server has."""

import logging
from itertools import islice

from job_orchestrator.common.runtime.fault_injection import Point, reach
from job_orchestrator.server.clients.registry import Client
from job_orchestrator.server.errors import ClientError

logger = logging.getLogger(__name__)

BATCH = 100


class Discarder:
    """The discarder's pass for one client: one request for all that has gathered meanwhile.

    What a client is never told, its own cleaner removes after ``MAX_AGE``: older clients, which
    don't push, know no such request.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    async def run_pass(self) -> None:
        """Tell the client."""
        discards = self._client.discards
        if not self._client.pushes:
            discards.clear()
        while discards:
            batch = list(islice(discards, BATCH))
            discards.difference_update(batch)
            try:
                await self._client.api.discard(batch)
                reach(Point.SERVER_DISCARDED)
            except ClientError as error:
                logger.info("%s", error)
