"""What the cgroup of a payload may use, in the words of both versions, and whether it met that."""

import contextlib
from pathlib import Path

from job_orchestrator.client.model import Limits
from job_orchestrator.common.config.units import size_text

PERIOD_US = 100_000
"""In which the kernel counts CPU time: its default."""


def needed(limits: Limits) -> frozenset[str]:
    """The controllers that the limits need."""
    wanted = {"memory": limits.memory_bytes, "pids": limits.pids, "cpu": limits.cpus}
    return frozenset(name for name, limit in wanted.items() if limit)


def impose(group: Path, version: int, limits: Limits, controllers: frozenset[str]) -> None:
    """Set those of the limits that the group's tree controls. Raises ``OSError``."""
    if "memory" in controllers and limits.memory_bytes:
        text = str(limits.memory_bytes)
        if version == 2:
            (group / "memory.max").write_text(text)
            _write_if_there(group / "memory.swap.max", "0")
        else:
            (group / "memory.limit_in_bytes").write_text(text)
            _write_if_there(group / "memory.memsw.limit_in_bytes", text)
    if "pids" in controllers and limits.pids:
        (group / "pids.max").write_text(str(limits.pids))
    if "cpu" in controllers and limits.cpus:
        quota_us = max(1000, round(limits.cpus * PERIOD_US))  # the kernel takes no less
        if version == 2:
            (group / "cpu.max").write_text(f"{quota_us} {PERIOD_US}")
        else:
            (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(quota_us))


def reached(group: Path, limits: Limits) -> str:
    """Which limit the group has met, for the user; empty if none."""
    killed = _count(group / "memory.events", "oom_kill") or _count(
        group / "memory.oom_control", "oom_kill"
    )
    if limits.memory_bytes and killed:
        return f"The memory limit of {size_text(limits.memory_bytes)} was reached"
    if limits.pids and _count(group / "pids.events", "max"):
        return f"The limit of {limits.pids} processes was reached"
    return ""


def _count(file: Path, event: str) -> int:
    with contextlib.suppress(OSError):
        for line in file.read_text().splitlines():
            name, _, count = line.partition(" ")
            if name == event:
                return int(count)
    return 0


def _write_if_there(file: Path, text: str) -> None:
    """Swap is not accounted for on every machine; there it can't be limited."""
    if file.exists():
        file.write_text(text)
