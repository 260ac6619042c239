"""The load of the machine, read in the background so that asking for it costs nothing."""

from collections.abc import Callable
from typing import NamedTuple

import psutil

from job_orchestrator.client import __version__
from job_orchestrator.client.payloads.store import PayloadStore
from job_orchestrator.common.messages import LoadEvent
from job_orchestrator.common.runtime.threads import in_thread

MIN_MEASURED_S = 0.5
"""Seconds of CPU time, of all CPUs together, that a mean needs: the kernel counts in hundredths."""


class CpuTimes(NamedTuple):
    """Seconds that the machine's CPUs have spent since its start."""

    busy: float
    total: float


class LoadMeter:
    """Its pass reads the load; ``reading`` is the last one. ``publish`` is called with each."""

    def __init__(
        self, store: PayloadStore, slots: int, publish: Callable[[LoadEvent], None]
    ) -> None:
        self._store = store
        self._slots = slots
        self._publish = publish
        # The first reading is the mean since the machine's start: better than none.
        self._earlier = CpuTimes(0.0, 0.0)
        self._draining = False
        self.reading = LoadEvent(cpu=0.0, memory=0.0, slots=slots, running=0, waiting=0)

    async def run_pass(self) -> None:
        """Read and publish the load. The CPU figure is the mean since the pass before."""
        times, memory = await in_thread(_read)
        running, waiting = await self._store.counts()
        cpu = self.reading.cpu
        if times.total - self._earlier.total >= MIN_MEASURED_S:
            cpu = cpu_percent(self._earlier, times)
            self._earlier = times
        self.reading = LoadEvent(
            cpu, memory, self._slots, running, waiting, self._draining, __version__
        )
        self._publish(self.reading)

    async def tell_draining(self) -> None:
        """From here on every reading says that no new payloads are taken."""
        self._draining = True
        await self.run_pass()


def cpu_percent(earlier: CpuTimes, later: CpuTimes) -> float:
    """Use of all CPUs together between two readings: 0 to 100."""
    passed = later.total - earlier.total
    if passed <= 0:
        return 0.0
    return round(min(max(100 * (later.busy - earlier.busy) / passed, 0.0), 100.0), 1)


def _read() -> tuple[CpuTimes, float]:
    # Not psutil.cpu_percent: it remembers the reading before for each thread by itself.
    times = psutil.cpu_times()
    # On Linux the time of guests is part of user time.
    total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    idle = times.idle + getattr(times, "iowait", 0.0)
    return CpuTimes(total - idle, total), float(psutil.virtual_memory().percent)
