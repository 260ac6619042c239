"""Assembly of the dispatch package.

The components call each other in one direction only::

    Dispatcher ─▶ Delivery ─▶ Collector ─▶ Fetcher ─▶ FetchSchedule
                                 ▲
    Watcher (one a client) ──────┴─▶ Inventory ─▶ AbandonedAttempts (one of each a client)

``FailedAttempts`` is what delivery, fetcher and collector do with attempts that failed.
``Acknowledger`` (one a client) confirms what the fetcher has stored.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextvars import Context

from job_orchestrator.common.runtime.lifecycle import Component
from job_orchestrator.server.clients.registry import Client, ClientRegistry
from job_orchestrator.server.dispatch.attendance import ClientLoops
from job_orchestrator.server.dispatch.collector import Collector
from job_orchestrator.server.dispatch.delivery import Delivery
from job_orchestrator.server.dispatch.dispatcher import Dispatcher
from job_orchestrator.server.dispatch.fetch_schedule import FetchSchedule
from job_orchestrator.server.dispatch.fetcher import Fetcher, Histogram
from job_orchestrator.server.dispatch.inputs import JobInputs
from job_orchestrator.server.dispatch.outcome import FailedAttempts
from job_orchestrator.server.jobs.stored_files import StoredFiles
from job_orchestrator.server.model import Service
from job_orchestrator.server.scheduling.offers import Offers
from job_orchestrator.server.scheduling.rules import Rules
from job_orchestrator.server.store.base import JobStore
from job_orchestrator.server.tuning import Tuning


class Dispatch:
    """The components that bring jobs to clients and fetch their results."""

    def __init__(
        self,
        store: JobStore,
        files: StoredFiles,
        registry: ClientRegistry,
        rules: Rules,
        offers: Offers,
        services: Mapping[str, Service],
        tuning: Tuning,
        fetch_seconds: Histogram,
        *,
        lost_after_s: float,
        max_result_bytes: int,
        max_input_bytes: int,
    ) -> None:
        self._store = store
        self._registry = registry
        self._tuning = tuning
        failed_attempts = FailedAttempts(store, registry, services)
        schedule = FetchSchedule(tuning)
        fetcher = Fetcher(
            store,
            files,
            schedule,
            failed_attempts,
            fetch_seconds,
            max_result_bytes=max_result_bytes,
            # Well before the job counts as lost, which would run it again.
            output_patience_s=min(tuning.output_patience_s, lost_after_s / 2),
        )
        self.collector = Collector(
            store,
            registry,
            fetcher,
            schedule,
            failed_attempts,
            services,
            tuning,
            lost_after_s=lost_after_s,
        )
        delivery = Delivery(
            store,
            JobInputs(store, files, max_input_bytes),
            registry,
            services,
            failed_attempts,
            self.collector,
            lost_after_s=lost_after_s,
            backoff=tuning.resubmit_backoff,
        )
        self.dispatcher = Dispatcher(
            store,
            registry,
            rules,
            offers,
            delivery,
            services,
            tuning,
            lost_after_s=lost_after_s,
        )
        registry.subscribe_to_capacity(self.dispatcher.loop.wake)
        # Those of clients that are configured, which are there from start to stop.
        self._configured = [
            self._loops_of(client, number) for number, client in enumerate(registry, start=1)
        ]
        self._registered: dict[str, ClientLoops] = {}
        self._running = False

    async def load(self) -> None:
        """Load what a previous run of the server has left of each configured client."""
        for loops in self._configured:
            await loops.load()

    async def attend(self, client: Client) -> None:
        """Begin to work for a client that has registered itself."""
        loops = self._loops_of(client, len(self._configured) + len(self._registered) + 1)
        self._registered[client.name] = loops
        await loops.load()
        if self._running:
            # The context of the request with which a client registers is not that of its loops.
            Context().run(loops.start)

    async def leave(self, client: Client) -> None:
        """End the work for a registered client, which is forgotten."""
        if (loops := self._registered.pop(client.name, None)) is not None:
            await loops.stop()

    def components(self) -> Sequence[Component]:
        """Return the background components, in the order of their start."""
        loops = [loop for each in self._configured for loop in each.loops]
        return [
            Component(
                [self.dispatcher.loop, self.collector.loop, *loops],
                prepare=self._prepare,
                close=self._close,
            ),
            # Passes of watchers don't end by themselves.
            Component([each.stream for each in self._configured], grace_s=0.0),
        ]

    async def leave_all(self) -> None:
        """End the work for all registered clients, at the stop of the server."""
        self._running = False
        await asyncio.gather(*(loops.stop() for loops in self._registered.values()))

    async def _prepare(self) -> None:
        await self.collector.resume()
        self._running = True
        for loops in self._registered.values():
            loops.start()

    def _loops_of(self, client: Client, number: int) -> ClientLoops:
        return ClientLoops(
            client, number, self._store, self._registry, self.collector, self._tuning
        )

    async def _close(self) -> None:
        # The dispatcher first: a delivery that ends may start a fetch.
        await self.dispatcher.close()
        await self.collector.close()
