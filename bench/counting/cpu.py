"""CPU time of a service, by process, from ``/proc`` (proc(5), ``/proc/pid/stat``).

CPU time holds on a busy machine, where a wall time says little.
"""

from dataclasses import dataclass

import psutil

from bench.services import Service


@dataclass(frozen=True)
class CpuSeconds:
    """CPU seconds, user and system, of a service and of everything that it has started.

    ``own`` is that of the service's process. ``started`` is that of its descendants, those that
    have ended included.
    """

    own: float
    started: float

    def since(self, earlier: "CpuSeconds") -> "CpuSeconds":
        """Return the difference to an earlier reading."""
        return CpuSeconds(self.own - earlier.own, self.started - earlier.started)


def cpu_seconds(service: Service) -> CpuSeconds:
    """Read the CPU time of a service."""
    times = service.process.cpu_times()
    started = times.children_user + times.children_system
    for process in service.process.children(recursive=True):
        try:
            child = process.cpu_times()
        except psutil.NoSuchProcess:
            continue  # its time is read with that of its parent next time
        started += child.user + child.system + child.children_user + child.children_system
    return CpuSeconds(times.user + times.system, started)
