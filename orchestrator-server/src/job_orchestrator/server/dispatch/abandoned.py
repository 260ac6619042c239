"""Ends what a client may still run of attempts that were given up while it was away."""

import asyncio
import logging

from job_orchestrator.common.runtime.fault_injection import Point, reach
from job_orchestrator.server.clients.registry import Client
from job_orchestrator.server.errors import ClientError, PayloadLost
from job_orchestrator.server.store.base import JobStore

logger = logging.getLogger(__name__)

KEPT_S = 30 * 86_400.0
"""A client that has been away for longer than this is not waited for."""


class Strays:
    """The pass for one client. What it has to do survives a crash: it is noted in the store.

    Results of such an attempt would be refused anyway; but it holds a slot, and works on the same
    job as another one.
    """

    def __init__(self, client: Client, store: JobStore) -> None:
        self._client = client
        self._store = store
        self._turn = asyncio.Lock()

    async def load(self) -> None:
        """Take up what an earlier life of the server has noted."""
        self._client.strays |= await self._store.abandoned.of(self._client.url, KEPT_S)

    async def run_pass(self) -> None:
        """End them, unless the client is known to be away."""
        if not self._client.problem:
            await self.end()

    async def end(self) -> None:
        """End them all, or as many as the client lets."""
        async with self._turn:
            await self._end_each()

    async def _end_each(self) -> None:
        for key in sorted(self._client.strays):
            try:
                payload = await self._client.api.kill_key(key)
            except PayloadLost:
                logger.info("%s can't be asked to end attempt %s", self._client.api, key)
            except ClientError as error:
                logger.info("Attempt %s is not ended yet: %s", key, error)
                return
            else:
                logger.info("Attempt %s was ended at %s", key, self._client.api)
                self._client.discards.add(payload.id)
            reach(Point.SERVER_STRAY_ENDED)
            await self._store.abandoned.forget(self._client.url, key)
            self._client.strays.discard(key)
