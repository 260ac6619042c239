"""Mechanisms that hold the processes of a payload together; tests skip those that are missing."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from job_orchestrator.client.executors.local.cgroups.hierarchy import visible_hierarchies
from job_orchestrator.client.executors.local.cgroups.payload_cgroups import (
    PayloadCgroups,
    open_cgroups,
)
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
