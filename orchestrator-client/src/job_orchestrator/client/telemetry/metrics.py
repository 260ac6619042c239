"""What Prometheus reads of the client. Nothing of it costs a look at the database."""

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from job_orchestrator.client.model import PayloadRow
from job_orchestrator.common.messages import LoadEvent
from job_orchestrator.common.status import FINAL_PAYLOAD, PayloadStatus
from job_orchestrator.common.web.metrics import LONG_S, new_registry

PREFIX = "jo_client"


class Metrics:
    """All of them. ``note`` is a listener of the store; ``clock`` gives seconds that only grow."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.registry: CollectorRegistry = new_registry()
        self._clock = clock
        self._begun: dict[int, float] = {}
        self._received = Counter(
            f"{PREFIX}_payloads_received_total",
            "Payloads that were taken in",
            registry=self.registry,
        )
        self._ended = Counter(
            f"{PREFIX}_payloads_ended_total",
            "Payloads that have ended",
            ["status"],
            registry=self.registry,
        )
        self._run_seconds = Histogram(
            f"{PREFIX}_run_seconds",
            "Time that a payload held a slot, packing of its results included",
            buckets=LONG_S,
            registry=self.registry,
        )
        for status in FINAL_PAYLOAD:  # so that a rate begins with a 0
            self._ended.labels(status)
        self._slots = self._gauge("slots", "How many payloads may run at once")
        self._running = self._gauge("payloads_running", "Payloads that hold a slot")
        self._waiting = self._gauge("payloads_waiting", "Payloads that wait for a slot")
        self._cpu = self._gauge("cpu_usage_ratio", "Use of the machine's CPUs, 0 to 1")
        self._memory = self._gauge("memory_usage_ratio", "Use of the machine's memory, 0 to 1")
        self._draining = self._gauge("draining", "1 if it stops, and takes no new payloads")
        self._event_streams = self._gauge("event_streams", "Event streams that are open")

    def note(self, row: PayloadRow) -> None:
        """A payload is new or has changed."""
        if row.status is PayloadStatus.PREPARED:
            self._received.inc()
        elif row.status is PayloadStatus.RUNNING:
            self._begun.setdefault(row.id, self._clock())
        elif row.status in FINAL_PAYLOAD:
            self._ended.labels(row.status).inc()
            begun = self._begun.pop(row.id, None)
            if begun is not None:
                self._run_seconds.observe(self._clock() - begun)

    def show(self, load: LoadEvent, event_streams: int) -> None:
        """Set the gauges to the last reading."""
        self._slots.set(load.slots)
        self._running.set(load.running)
        self._waiting.set(load.waiting)
        self._cpu.set(load.cpu / 100)
        self._memory.set(load.memory / 100)
        self._draining.set(load.draining)
        self._event_streams.set(event_streams)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"{PREFIX}_{name}", text, registry=self.registry)
