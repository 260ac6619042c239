"""Acknowledgement of stored results, so that a client can remove its copies."""

import logging
import time
from collections.abc import Callable
from itertools import islice

from job_orchestrator.common.runtime.backoff import Backoff
from job_orchestrator.common.runtime.fault_injection import Point, reach
from job_orchestrator.server.clients.registry import Client
from job_orchestrator.server.errors import ClientError, ClientRefused
from job_orchestrator.server.store.base import JobStore

logger = logging.getLogger(__name__)

BATCH = 100

KEPT_S = 30 * 86_400.0
"""The acknowledgements of a client that stays away for longer than this are forgotten."""


class Acknowledger:
    """Acknowledges all results of one client that were stored since the last pass.

    An acknowledgement is recorded in the store together with the end of its job, until the client
    has confirmed it. Older clients, which have no event stream, don't know the request: they remove
    payloads after ``MAX_AGE``. ``clock`` returns monotonic seconds.
    """

    def __init__(
        self,
        client: Client,
        store: JobStore,
        backoff: Backoff,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._store = store
        self._backoff = backoff
        self._clock = clock
        self._failures = 0
        self._retry_at = 0.0

    async def load(self) -> None:
        """Load the acknowledgements that a previous run of the server has recorded."""
        recorded = await self._store.acknowledgements.of(self._client.name, KEPT_S)
        self._client.unacknowledged |= recorded

    async def run_pass(self) -> None:
        """Acknowledge in batches while the client is connected; a batch that fails is repeated."""
        pending = self._client.unacknowledged
        while pending and self._clock() >= self._retry_at:
            batch = list(islice(pending, BATCH))
            if self._client.has_events and not await self._acknowledge(batch):
                return
            await self._store.acknowledgements.confirmed(self._client.name, batch)
            pending.difference_update(batch)

    async def _acknowledge(self, batch: list[int]) -> bool:
        """Send a batch to a client that is connected. Returns False if it must be sent again."""
        if not self._client.pushes:
            return False
        try:
            await self._client.transport.acknowledge(batch)
        except ClientRefused as error:
            logger.warning("%s", error)  # a repeat would be refused, too
        except ClientError as error:
            logger.info("%s", error)
            self._failures += 1
            self._retry_at = self._clock() + self._backoff.delay_s(self._failures)
            return False
        self._failures = 0
        reach(Point.SERVER_DISCARDED)
        return True
