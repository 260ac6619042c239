"""Assembly of the dispatch package.

The components call each other in one direction only::

    Dispatcher ─▶ Delivery ─▶ Collector ─▶ Fetcher ─▶ FetchSchedule
                                 ▲
    Watcher (one a client) ──────┴─▶ Inventory ─▶ AbandonedAttempts (one of each a client)

``FailedAttempts`` is what delivery, fetcher and collector do with attempts that failed.
``Acknowledger`` (one a client) confirms what the fetcher has stored.
"""

from collections.abc import Mapping, Sequence

from job_orchestrator.common.runtime.lifecycle import Component
from job_orchestrator.common.runtime.loops import Loop
from job_orchestrator.server.clients.registry import ClientRegistry
from job_orchestrator.server.dispatch.abandoned import AbandonedAttempts
from job_orchestrator.server.dispatch.acknowledger import Acknowledger
from job_orchestrator.server.dispatch.collector import Collector
from job_orchestrator.server.dispatch.delivery import Delivery
from job_orchestrator.server.dispatch.dispatcher import Dispatcher
from job_orchestrator.server.dispatch.fetch_schedule import FetchSchedule
from job_orchestrator.server.dispatch.fetcher import Fetcher, Histogram
from job_orchestrator.server.dispatch.inputs import JobInputs
from job_orchestrator.server.dispatch.inventory import Inventory
from job_orchestrator.server.dispatch.outcome import FailedAttempts
from job_orchestrator.server.dispatch.watcher import Watcher
from job_orchestrator.server.jobs.stored_files import StoredFiles
from job_orchestrator.server.model import Service
from job_orchestrator.server.scheduling.offers import Offers
from job_orchestrator.server.scheduling.rules import Rules
from job_orchestrator.server.store.base import JobStore
from job_orchestrator.server.tuning import Tuning

WATCHER_INTERVAL_S = 0.01
"""Short, because watchers themselves wait before they dial a client again."""


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
        self._abandoned = [AbandonedAttempts(client, store) for client in registry]
        self._acknowledgers = [
            Acknowledger(client, store, tuning.acknowledge_backoff) for client in registry
        ]

    async def load(self) -> None:
        """Load what a previous run of the server has left.

        These are active jobs, abandoned attempts and acknowledgements.
        """
        for client, abandoned in zip(self._registry, self._abandoned, strict=True):
            for job in await self._store.active(client.name):
                self._registry.on_job_changed(job)
            await abandoned.load()
        for acknowledger in self._acknowledgers:
            await acknowledger.load()

    def components(self) -> Sequence[Component]:
        """Return the background components, in the order of their start."""
        tuning, loops, streams = self._tuning, [self.dispatcher.loop, self.collector.loop], []
        for number, (client, abandoned, acknowledger) in enumerate(
            zip(self._registry, self._abandoned, self._acknowledgers, strict=True), start=1
        ):
            inventory = Inventory(client, self._store, self.collector.fetch)
            watcher = Watcher(client, self._registry, self.collector, inventory, abandoned, tuning)
            loops += [
                Loop(
                    f"acknowledger {number}",
                    acknowledger.run_pass,
                    interval_s=tuning.acknowledge_interval_s,
                ),
                Loop(
                    f"abandoned attempts {number}",
                    abandoned.run_pass,
                    interval_s=tuning.abandoned_interval_s,
                ),
            ]
            streams.append(
                Loop(f"watcher {number}", watcher.run_pass, interval_s=WATCHER_INTERVAL_S)
            )
        return [
            Component(loops, prepare=self.collector.resume, close=self._close),
            # Passes of watchers don't end by themselves.
            Component(streams, grace_s=0.0),
        ]

    async def _close(self) -> None:
        # The dispatcher first: a delivery that ends may start a fetch.
        await self.dispatcher.close()
        await self.collector.close()
