"""Prometheus metrics of jo-client.

Counters are updated by a subscriber of the store, so that they need no queries.
"""

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from job_orchestrator.client.model import PayloadRow
from job_orchestrator.common.messages.payloads import LoadEvent
from job_orchestrator.common.status import FINAL_PAYLOAD, PayloadStatus
from job_orchestrator.common.telemetry import LONG_S, new_registry

PREFIX = "jo_client"


class Metrics:
    """The metrics of jo-client. ``on_payload_changed`` subscribes to the store.

    ``clock`` is monotonic, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.registry: CollectorRegistry = new_registry()
        self._clock = clock
        self._started_at: dict[int, float] = {}
        self._received = Counter(
            f"{PREFIX}_payloads_received_total",
            "Payloads that were accepted",
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
            "Time from the start of a payload to its end, including the packing of its results",
            buckets=LONG_S,
            registry=self.registry,
        )
        # A rate needs a first sample of 0.
        for status in FINAL_PAYLOAD:
            self._ended.labels(status)
        self._slots = self._gauge("slots", "Maximum number of concurrent payloads")
        self._running = self._gauge("payloads_running", "Payloads that occupy a slot")
        self._waiting = self._gauge("payloads_waiting", "Payloads that wait for a slot")
        self._cpu = self._gauge("cpu_usage_ratio", "CPU usage of the machine, 0 to 1")
        self._memory = self._gauge("memory_usage_ratio", "Memory usage of the machine, 0 to 1")
        self._draining = self._gauge(
            "draining", "1 if the client is stopping and accepts no payloads"
        )
        self._event_streams = self._gauge("event_streams", "Open event streams")

    def on_payload_changed(self, row: PayloadRow) -> None:
        """Count a payload that was created or changed its state."""
        if row.status is PayloadStatus.PREPARED:
            self._received.inc()
        elif row.reported_status is PayloadStatus.RUNNING:
            self._started_at.setdefault(row.id, self._clock())
        elif row.status in FINAL_PAYLOAD:
            self._ended.labels(row.status).inc()
            started_at = self._started_at.pop(row.id, None)
            if started_at is not None:
                self._run_seconds.observe(self._clock() - started_at)

    def set_gauges(self, load: LoadEvent, event_streams: int) -> None:
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
