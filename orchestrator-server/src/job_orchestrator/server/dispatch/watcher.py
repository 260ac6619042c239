"""Watcher of one client: holds its event stream, or polls its load if it has none."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from job_orchestrator.common.messages.payloads import LoadEvent
from job_orchestrator.server.clients.base import EventsNotOffered
from job_orchestrator.server.clients.registry import Client, ClientRegistry
from job_orchestrator.server.dispatch.abandoned import AbandonedAttempts
from job_orchestrator.server.dispatch.collector import Collector
from job_orchestrator.server.dispatch.inventory import Inventory
from job_orchestrator.server.errors import ClientError
from job_orchestrator.server.tuning import Tuning

logger = logging.getLogger(__name__)

STEADY_S = 10.0
"""Time after which a connection that breaks was a good one, and is dialed again quickly."""


class Watcher:
    """Hands the events of one client to the registry and the collector.

    A pass lasts as long as the event stream, and the delay before the next one if it broke. The
    next pass connects again; only when that fails is the client unreachable and its jobs Unknown.
    """

    def __init__(
        self,
        client: Client,
        registry: ClientRegistry,
        collector: Collector,
        inventory: Inventory,
        abandoned: AbandonedAttempts,
        tuning: Tuning,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._registry = registry
        self._collector = collector
        self._inventory = inventory
        self._abandoned = abandoned
        self._tuning = tuning
        self._sleep = sleep
        self._clock = clock
        self._reachable: bool | None = None  # not known yet
        # Connections in a row that failed or broke soon.
        self._failures = 0

    async def run_pass(self) -> None:
        """Follow the client until the connection breaks, then wait until it may be dialed again."""
        began = self._clock()
        try:
            await self._follow()
        except ClientError as error:
            await self._on_broken(str(error))
        else:
            return
        finally:
            self._client.pushes = False
        self._failures = 1 if self._clock() - began > STEADY_S else self._failures + 1
        await self._sleep(self._tuning.reconnect_backoff.delay_s(self._failures))

    async def _follow(self) -> None:
        try:
            await self._follow_events()
        except EventsNotOffered:
            self._client.has_events = False
            await self._poll_load()

    async def _follow_events(self) -> None:
        async with self._client.transport.events() as events:
            # From here on every change is pushed; earlier changes are fetched on connection.
            self._client.pushes = self._client.has_events = True
            await self._inventory.compare()
            # Abandoned attempts are killed first, so that none runs concurrently with the next
            # attempt of its job.
            await self._abandoned.kill_all()
            self._on_connected()
            async for event in events:
                if isinstance(event, LoadEvent):
                    self._registry.on_load(self._client, event)
                else:
                    self._collector.on_event(self._client, event)

    async def _poll_load(self) -> None:
        for _ in range(self._tuning.load_readings):
            self._client.cpu = await self._client.transport.load()
            if not self._reachable:
                self._on_connected()
            await self._sleep(self._tuning.load_interval_s)

    def _on_connected(self) -> None:
        if not self._reachable:
            logger.info("Client %s is connected", self._client.name)
        self._reachable = True
        self._registry.mark_connected(self._client)
        self._collector.on_connected(self._client)

    async def _on_broken(self, problem: str) -> None:
        if self._client.pushes:
            logger.info("%s", problem)  # the next pass finds out whether the client is still there
            return
        if self._reachable is not False:
            logger.warning("%s", problem)
        self._reachable = False
        self._client.problem = problem
        await self._collector.on_unreachable(self._client, problem)
