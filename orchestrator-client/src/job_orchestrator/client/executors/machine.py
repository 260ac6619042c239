"""Resources of this machine, and which payload has which share of them."""

import contextlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from job_orchestrator.client.executors.local.cgroups.hierarchy import visible_hierarchies
from job_orchestrator.client.model import Share
from job_orchestrator.common.messages.resources import Resources

UNLIMITED_CPUS, UNLIMITED_BYTES, UNLIMITED_GPUS = 100_000.0, 1 << 50, 1000
"""Resources of a batch system whose limits only the system itself knows."""

_DEVICE = re.compile(r"nvidia\d+")


def usable_cpus() -> float:
    """Return how many CPUs this process may use: those of the machine, or its cgroup's limit."""
    cpus = float(len(os.sched_getaffinity(0)))
    for own in _own_cgroups():
        with contextlib.suppress(OSError, ValueError):
            quota, period = (own / "cpu.max").read_text().split()
            cpus = min(cpus, int(quota) / int(period))
        with contextlib.suppress(OSError, ValueError):
            quota_us = int((own / "cpu.cfs_quota_us").read_text())
            if quota_us > 0:
                cpus = min(cpus, quota_us / int((own / "cpu.cfs_period_us").read_text()))
    return round(cpus, 2)


def usable_memory_bytes() -> int:
    """Return the memory that this process may use: that of the machine, or its cgroup's limit."""
    memory = int(psutil.virtual_memory().total)
    for own in _own_cgroups():
        for name in ("memory.max", "memory.limit_in_bytes"):
            with contextlib.suppress(OSError, ValueError):
                memory = min(memory, int((own / name).read_text()))
    return memory


def visible_gpus(devices: Path = Path("/dev"), driver: Path = Path("/proc/driver/nvidia")) -> int:
    """Count the NVIDIA devices of this machine. The driver counts them from 0.

    A container has nodes of the devices that it may use, and sees all in ``/proc``. Without a
    container, nodes may be missing before the first use of a device.
    """
    names: list[str] = []
    with contextlib.suppress(OSError):
        names = [path.name for path in devices.iterdir() if _DEVICE.fullmatch(path.name)]
    if not names:
        with contextlib.suppress(OSError):
            names = [path.name for path in (driver / "gpus").iterdir()]
    return len(names)


@dataclass(eq=False)
class Machine:
    """Resources that payloads share. ``gpus`` are the indices of its NVIDIA devices.

    No two payloads have the same GPU at the same time.
    """

    cpus: float
    memory_bytes: int
    gpus: tuple[int, ...] = ()
    _shares: dict[int, Share] = field(default_factory=dict, init=False)

    @property
    def offer(self) -> Resources:
        """Resources for all payloads together."""
        return Resources(self.cpus, self.memory_bytes, len(self.gpus))

    @property
    def used(self) -> Resources:
        """Resources that running payloads have asked for."""
        return _sum([share.amounts for share in self._shares.values()])

    def count_fitting(self, wanted: Sequence[Resources]) -> int:
        """Count the payloads, from the first on, that can start now together.

        A payload that does not fit holds up those behind it: otherwise it might wait for ever.
        """
        free = self.offer.less(self.used)
        for number, each in enumerate(wanted):
            if not free.hold(each):
                return number
            free = free.less(each)
        return len(wanted)

    def take(self, payload_id: int, wanted: Resources) -> Share:
        """Give a payload its share, with the lowest free GPUs."""
        taken = {index for share in self._shares.values() for index in share.gpus}
        free = [index for index in self.gpus if index not in taken]
        share = Share(wanted.cpus, wanted.memory_bytes, tuple(free[: wanted.gpus]))
        if share.any:
            self._shares[payload_id] = share
        return share

    def release(self, payload_id: int) -> None:
        """Take back the share of a payload whose script has ended."""
        self._shares.pop(payload_id, None)


def cluster(cpus: float | None, memory_bytes: int | None, gpus: tuple[int, ...] | None) -> Machine:
    """Return what payloads may ask of a batch system: what the settings say, or any amount.

    The batch system itself refuses a job that fits on none of its nodes.
    """
    return Machine(
        UNLIMITED_CPUS if cpus is None else cpus,
        UNLIMITED_BYTES if memory_bytes is None else memory_bytes,
        tuple(range(UNLIMITED_GPUS)) if gpus is None else gpus,
    )


def find_machine(
    cpus: float | None, memory_bytes: int | None, gpus: tuple[int, ...] | None
) -> Machine:
    """Return the machine with what the settings say, and with what is found instead of None."""
    return Machine(
        usable_cpus() if cpus is None else cpus,
        usable_memory_bytes() if memory_bytes is None else memory_bytes,
        tuple(range(visible_gpus())) if gpus is None else gpus,
    )


def _sum(amounts: Sequence[Resources]) -> Resources:
    return sum(amounts, start=Resources())


def _own_cgroups() -> list[Path]:
    with contextlib.suppress(OSError):
        return [hierarchy.own for hierarchy in visible_hierarchies()]
    return []
