"""Resource limits of a cgroup, in the files of both versions."""

import contextlib
from pathlib import Path

from job_orchestrator.client.model import Limits
from job_orchestrator.common.config.units import size_text

PERIOD_US = 100_000
"""Period in which the kernel accounts CPU time; its default."""

MIN_QUOTA_US = 1000
"""Smallest CPU quota that the kernel accepts."""


def needed_controllers(limits: Limits) -> frozenset[str]:
    """Return the controllers that the limits need."""
    wanted = {"memory": limits.memory_bytes, "pids": limits.pids, "cpu": limits.cpus}
    return frozenset(name for name, limit in wanted.items() if limit)


def set_limits(cgroup: Path, version: int, limits: Limits, controllers: frozenset[str]) -> None:
    """Set those limits whose controllers are in the cgroup's hierarchy. Raises ``OSError``."""
    if "memory" in controllers and limits.memory_bytes:
        text = str(limits.memory_bytes)
        if version == 2:
            (cgroup / "memory.max").write_text(text)
            _write_if_exists(cgroup / "memory.swap.max", "0")
        else:
            (cgroup / "memory.limit_in_bytes").write_text(text)
            _write_if_exists(cgroup / "memory.memsw.limit_in_bytes", text)
    if "pids" in controllers and limits.pids:
        (cgroup / "pids.max").write_text(str(limits.pids))
    if "cpu" in controllers and limits.cpus:
        quota_us = max(MIN_QUOTA_US, round(limits.cpus * PERIOD_US))
        if version == 2:
            (cgroup / "cpu.max").write_text(f"{quota_us} {PERIOD_US}")
        else:
            (cgroup / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (cgroup / "cpu.cfs_quota_us").write_text(str(quota_us))


def limit_reached(cgroup: Path, limits: Limits) -> str:
    """Describe for the user which limit was reached; empty if none was."""
    killed = _count(cgroup / "memory.events", "oom_kill") or _count(
        cgroup / "memory.oom_control", "oom_kill"
    )
    if limits.memory_bytes and killed:
        return f"The memory limit of {size_text(limits.memory_bytes)} was reached"
    if limits.pids and _count(cgroup / "pids.events", "max"):
        return f"The limit of {limits.pids} processes was reached"
    return ""


def _count(file: Path, event: str) -> int:
    with contextlib.suppress(OSError):
        for line in file.read_text().splitlines():
            name, _, count = line.partition(" ")
            if name == event:
                return int(count)
    return 0


def _write_if_exists(file: Path, text: str) -> None:
    """Write a limit of swap. Machines that do not account for swap do not have the file."""
    if file.exists():
        file.write_text(text)
