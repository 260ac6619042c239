"""Mechanisms that hold the processes of a payload together; tests skip those that are missing."""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from job_orchestrator.client.executors.local.cgroups.hierarchy import visible_hierarchies
from job_orchestrator.client.executors.local.cgroups.payload_cgroups import (
    PayloadCgroups,
    open_cgroups,
)
from job_orchestrator.client.executors.local.child import CgroupStarter
from job_orchestrator.client.executors.local.sandbox import open_sandbox
from job_orchestrator.client.executors.local.settings import ExecutionSettings
from job_orchestrator.client.executors.local.users import open_users
from job_orchestrator.client.model import ScriptUser

NOBODY = ScriptUser(65534, 65534)

MECHANISMS = ("subreaper", "cgroup.kill", "freezer", "sandbox", "sandbox in cgroup")


def cgroups_of(mechanism: str, folder: Path) -> PayloadCgroups | None:
    """Return the cgroups for payloads in ``folder``; None if the mechanism uses none."""
    if mechanism in ("subreaper", "sandbox"):
        return None
    version = 1 if mechanism == "freezer" else 2
    usable = [hierarchy for hierarchy in visible_hierarchies() if hierarchy.version == version]
    cgroups = open_cgroups(ExecutionSettings(), folder, usable)
    if cgroups is None:
        pytest.skip(f"{mechanism} can't be used here")
    return cgroups


@contextmanager
def cgroups_with(starter: Callable[[], CgroupStarter], folder: Path) -> Iterator[PayloadCgroups]:
    """Open cgroups in which ``starter`` starts the programs."""
    cgroups = cgroups_of("cgroup.kill", folder)
    assert cgroups is not None
    try:
        if cgroups.starter is None:
            # Only kernels before 5.7 cannot do it; on a later one it is a bug of the client.
            release = [int(number) for number in re.findall(r"\d+", os.uname().release)[:2]]
            assert release < [5, 7]
            pytest.skip("this kernel can't start processes directly in a cgroup")
        cgroups.starter.close()
        cgroups.starter = starter()
        yield cgroups
        cgroups.clear()
    finally:
        cgroups.close()


def sandbox_of(mechanism: str, data_path: Path, **settings: Any) -> dict[str, Any]:
    """Return the executor's arguments for scripts in bubblewrap; none if it is not used."""
    if "sandbox" not in mechanism:
        return {}
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    users = (NOBODY,) if os.geteuid() == 0 else ()
    asked = ExecutionSettings(sandbox=True, run_as=users, **settings)
    return {
        "users": open_users(users),
        "sandbox": open_sandbox(asked, data_path, os.defpath),
    }
