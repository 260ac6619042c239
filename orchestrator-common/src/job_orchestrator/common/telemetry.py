"""Prometheus metrics that both services have."""

import asyncio

import prometheus_client
from prometheus_client import CollectorRegistry, Histogram

# It would add a second time series, which is not used, to each counter and histogram.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]

QUICK_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
"""Buckets for durations of milliseconds."""

LONG_S = (0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600, 7 * 86400)
"""Buckets for durations of up to days."""

MEASURED_S = 0.1


def new_registry() -> CollectorRegistry:
    """Create a registry with the metrics of this process. Reads some files of /proc."""
    registry = CollectorRegistry()
    prometheus_client.ProcessCollector(registry=registry)
    return registry


class LoopLag:
    """Measures the delay of the event loop, which grows when something blocks it."""

    def __init__(self, prefix: str, registry: CollectorRegistry) -> None:
        self._seconds = Histogram(
            f"{prefix}_loop_lag_seconds",
            "How late the event loop woke a task that had slept",
            buckets=QUICK_S,
            registry=registry,
        )

    async def run_pass(self) -> None:
        """Measure once."""
        loop = asyncio.get_running_loop()
        due = loop.time() + MEASURED_S
        await asyncio.sleep(MEASURED_S)
        self._seconds.observe(max(loop.time() - due, 0.0))
