"""Description of the machine of a run, and a warning if the machine was busy."""

import os
import platform
import re
import sqlite3
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

BUSY_LOAD_PER_CORE = 0.3


def describe(folder: Path) -> dict[str, Any]:
    """Return the properties that figures depend on. Files are written to ``folder``."""
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cores": os.cpu_count(),
        "cpu": _cpu(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "file_system": _file_system(folder),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "aiohttp": metadata.version("aiohttp"),
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }


def warning(machine: Mapping[str, Any]) -> str:
    """Return why the figures are unreliable; empty if no reason is known."""
    if machine["load_average"][0] > BUSY_LOAD_PER_CORE * machine["cores"]:
        return (
            f"The machine was busy with other work (load {machine['load_average'][0]} on"
            f" {machine['cores']} cores): these figures are unreliable."
        )
    if machine["file_system"] in ("tmpfs", "ramfs"):
        return "Files were written to memory, where a flush does nothing: choose another --folder."
    return ""


def _cpu() -> str:
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return found[1] if found else platform.machine()


def _file_system(folder: Path) -> str:
    mounts = [p for p in psutil.disk_partitions(all=True) if folder.is_relative_to(p.mountpoint)]
    return str(max(mounts, key=lambda mount: len(mount.mountpoint)).fstype) if mounts else "unknown"
