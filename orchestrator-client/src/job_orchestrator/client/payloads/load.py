"""Load of the machine, measured in the background, so that a request for it costs nothing."""

from collections.abc import Callable
from typing import NamedTuple

import psutil

from job_orchestrator.client import __version__
from job_orchestrator.client.executors.machine import Machine
from job_orchestrator.client.payloads.store import PayloadStore
from job_orchestrator.common.messages.payloads import ClientLimits, LoadEvent
from job_orchestrator.common.runtime.loops import Loop
from job_orchestrator.common.runtime.threads import in_thread

INTERVAL_S = 5.0

MIN_MEASURED_S = 0.5
"""Least CPU time, of all CPUs together, for a mean: the kernel counts in hundredths of a second."""


MAX_WAITING = 1000
"""Payloads that wait for a slot whose resources are counted as used."""


class CpuTimes(NamedTuple):
    """Seconds that the machine's CPUs have spent since it started."""

    busy: float
    total: float


def cpu_percent(earlier: CpuTimes, later: CpuTimes) -> float:
    """Return the use of all CPUs together between two readings: 0 to 100."""
    passed = later.total - earlier.total
    if passed <= 0:
        return 0.0
    return round(min(max(100 * (later.busy - earlier.busy) / passed, 0.0), 100.0), 1)


def read_cpu_times() -> CpuTimes:
    """Read the CPU times. psutil.cpu_percent keeps its previous reading for each thread."""
    times = psutil.cpu_times()
    # On Linux, user time includes the time of guests.
    total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    idle = times.idle + getattr(times, "iowait", 0.0)
    return CpuTimes(total - idle, total)


class LoadMeter:
    """Meter whose pass measures the load. ``reading`` is the last reading."""

    def __init__(
        self,
        store: PayloadStore,
        slots: int,
        publish: Callable[[LoadEvent], None],
        cpu_times: Callable[[], CpuTimes] = read_cpu_times,
        *,
        machine: Machine | None = None,
        limits: ClientLimits | None = None,
        warnings: tuple[str, ...] = (),
        measures_machine: bool = True,
    ) -> None:
        """Create the meter. ``publish`` is called with each reading.

        Each reading has what the ``machine`` offers, the ``limits`` and the ``warnings``. If
        payloads run elsewhere, the CPU use of this machine says nothing: the share of the slots in
        use takes its place.
        """
        self._warnings = warnings
        self._read_cpu_times = cpu_times
        self._measures_machine = measures_machine
        self._store = store
        self._slots = slots
        self._machine = machine or Machine(0.0, 0)
        self._publish = publish
        self._limits = limits
        # The first reading is the mean since the machine started: better than no reading.
        self._earlier = CpuTimes(0.0, 0.0)
        self._draining = False
        self._problem = ""
        self.reading = LoadEvent(cpu=0.0, memory=0.0, slots=slots, running=0, waiting=0)
        self.loop = Loop("load meter", self.run_pass, interval_s=INTERVAL_S)

    async def run_pass(self) -> None:
        """Measure and publish the load. The CPU figure is the mean since the previous pass."""
        times, memory = await in_thread(self._measure)
        running, waiting = await self._store.counts()
        wanted = await self._store.next_wanted(MAX_WAITING) if waiting else ()
        cpu = self.reading.cpu
        if times.total - self._earlier.total >= MIN_MEASURED_S:
            cpu = cpu_percent(self._earlier, times)
            self._earlier = times
        if not self._measures_machine:
            cpu = round(min(100 * (running + waiting) / self._slots, 100.0), 1)
        self.reading = LoadEvent(
            cpu,
            memory,
            self._slots,
            running,
            waiting,
            draining=self._draining or bool(self._problem),
            version=__version__,
            limits=self._limits,
            problem=self._problem,
            warnings=self._warnings,
            resources=self._machine.offer,
            resources_used=sum(wanted, start=self._machine.used),
        )
        self._publish(self.reading)

    async def announce_draining(self) -> None:
        """Publish, in this and all further readings, that no payloads are accepted any more."""
        self._draining = True
        await self.run_pass()

    async def announce_problem(self, problem: str) -> None:
        """Publish, in this and all further readings, why no payloads are accepted; empty: they are.

        Servers that do not know the reason take the client for one that is stopping.
        """
        self._problem = problem
        await self.run_pass()

    def _measure(self) -> tuple[CpuTimes, float]:
        return self._read_cpu_times(), float(psutil.virtual_memory().percent)
