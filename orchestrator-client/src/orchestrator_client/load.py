"""The load of the machine, read in the background so that asking for it costs nothing."""

from collections.abc import Callable

import psutil

from orchestrator_client.payloads import PayloadStore
from orchestrator_common.models import LoadEvent
from orchestrator_common.threads import in_thread


class LoadMeter:
    """Its pass reads the load; ``reading`` is the last one. ``publish`` is called with each."""

    def __init__(
        self, store: PayloadStore, slots: int, publish: Callable[[LoadEvent], None]
    ) -> None:
        self._store = store
        self._slots = slots
        self._publish = publish
        self.reading = LoadEvent(cpu=0.0, memory=0.0, slots=slots, running=0, waiting=0)

    async def run_pass(self) -> None:
        """Read and publish the load. The CPU figure is the mean since the pass before."""
        cpu, memory = await in_thread(_read)
        running, waiting = await self._store.counts()
        self.reading = LoadEvent(cpu, memory, self._slots, running, waiting)
        self._publish(self.reading)


def _read() -> tuple[float, float]:
    return float(psutil.cpu_percent()), float(psutil.virtual_memory().percent)
