"""Loops of the server for one client: its events, acknowledgements and abandoned attempts."""

import asyncio
from collections.abc import Sequence

from job_orchestrator.common.runtime.loops import Loop
from job_orchestrator.server.clients.registry import Client, ClientRegistry
from job_orchestrator.server.dispatch.abandoned import AbandonedAttempts
from job_orchestrator.server.dispatch.acknowledger import Acknowledger
from job_orchestrator.server.dispatch.collector import Collector
from job_orchestrator.server.dispatch.inventory import Inventory
from job_orchestrator.server.dispatch.watcher import Watcher
from job_orchestrator.server.store.base import JobStore
from job_orchestrator.server.tuning import Tuning

WATCHER_INTERVAL_S = 0.01
"""Short, because watchers themselves wait before they dial a client again."""


class ClientLoops:
    """The loops of one client. ``stream`` follows its events, ``loops`` are all others.

    Passes of ``stream`` don't end by themselves. ``number`` is for the names of the loops.
    """

    def __init__(
        self,
        client: Client,
        number: int,
        store: JobStore,
        registry: ClientRegistry,
        collector: Collector,
        tuning: Tuning,
    ) -> None:
        self._client = client
        self._store = store
        self._registry = registry
        self._abandoned = AbandonedAttempts(client, store)
        self._acknowledger = Acknowledger(client, store, tuning.acknowledge_backoff)
        connector = client.connector
        watcher = Watcher(
            client,
            registry,
            collector,
            Inventory(client, store, collector.fetch),
            self._abandoned,
            tuning,
            # A client that dials is followed as soon as it has.
            sleep=asyncio.sleep if connector is None else connector.sleep,
        )
        self.stream = Loop(f"watcher {number}", watcher.run_pass, interval_s=WATCHER_INTERVAL_S)
        self.loops: Sequence[Loop] = (
            Loop(
                f"acknowledger {number}",
                self._acknowledger.run_pass,
                interval_s=tuning.acknowledge_interval_s,
            ),
            Loop(
                f"abandoned attempts {number}",
                self._abandoned.run_pass,
                interval_s=tuning.abandoned_interval_s,
            ),
        )

    async def load(self) -> None:
        """Load what a previous run of the server has left of the client.

        These are active jobs, abandoned attempts and acknowledgements.
        """
        for job in await self._store.active(self._client.name):
            self._registry.on_job_changed(job)
        await self._abandoned.load()
        await self._acknowledger.load()

    def start(self) -> None:
        """Start all loops."""
        for loop in (*self.loops, self.stream):
            loop.start()

    async def stop(self) -> None:
        """Stop all loops."""
        await asyncio.gather(self.stream.stop(grace_s=0.0), *(loop.stop() for loop in self.loops))
