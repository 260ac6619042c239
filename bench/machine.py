"""Description of the machine of a run, and a warning if the machine was busy."""

import os
import platform
import re
import sqlite3
import sysconfig
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from bench.journal import file_system

BUSY_LOAD_PER_CORE = 0.3


def describe(folder: Path) -> dict[str, Any]:
    """Return the properties that figures depend on. Files are written to ``folder``."""
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cores": os.cpu_count(),
        "cpu": _cpu(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "file_system": file_system(folder),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "python_optimized": _is_optimized(),
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
    if machine["file_system"] == "ext4 without a journal":
        return (
            "The file system has no journal, where creating a file takes ten times the CPU time:"
            " choose another --folder, or run as root, which makes one."
        )
    return ""


def _cpu() -> str:
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return found[1] if found else platform.machine()


def _is_optimized() -> bool:
    """Return whether this Python was built with profile-guided optimization, as most are.

    Without it a job takes a tenth more CPU time.
    """
    return "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "")
