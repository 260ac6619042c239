"""Ends abandoned attempts.

An attempt is abandoned when it is given up while its client may still run it, as after a silence of
``LOST_AFTER``; the job is then queued again. Results of the old attempt would be refused (see
``JobStore.transition``), but it holds a slot and duplicates work, so it is killed as soon as its
client can be reached. Abandoned attempts are recorded in the store and survive a restart.
"""

import asyncio
import logging

from job_orchestrator.common.runtime.fault_injection import Point, reach
from job_orchestrator.server.clients.registry import Client
from job_orchestrator.server.errors import ClientError, PayloadLost
from job_orchestrator.server.store.base import JobStore

logger = logging.getLogger(__name__)

KEPT_S = 30 * 86_400.0
"""The attempts of a client that stays away for longer than this are forgotten."""


class AbandonedAttempts:
    """Kills the abandoned attempts of one client."""

    def __init__(self, client: Client, store: JobStore) -> None:
        self._client = client
        self._store = store
        self._lock = asyncio.Lock()

    async def load(self) -> None:
        """Load the attempts that a previous run of the server has recorded."""
        self._client.abandoned |= await self._store.abandoned.of(self._client.name, KEPT_S)

    async def run_pass(self) -> None:
        """Kill all abandoned attempts, unless the client is known to be unreachable."""
        if not self._client.problem:
            await self.kill_all()

    async def kill_all(self) -> None:
        """Kill all abandoned attempts, up to the first that fails."""
        async with self._lock:
            await self._kill_all()

    async def _kill_all(self) -> None:
        for key in sorted(self._client.abandoned):
            payload_id = None
            try:
                payload_id = (await self._client.transport.kill_key(key)).id
            except PayloadLost:
                logger.info("%s is too old to end attempt %s by its key", self._client.name, key)
            except ClientError as error:
                logger.info("Attempt %s is not ended yet: %s", key, error)
                return
            else:
                logger.info("Attempt %s was ended at %s", key, self._client.name)
            reach(Point.SERVER_STRAY_ENDED)
            await self._store.abandoned.forget(self._client.name, key, acknowledge=payload_id)
            self._client.abandoned.discard(key)
            if payload_id is not None:
                self._client.unacknowledged.add(payload_id)
