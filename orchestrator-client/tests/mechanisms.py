"""The ways in which a payload's processes are held together: each is tested where it is there."""

from pathlib import Path

import pytest

from orchestrator_client.execution_settings import ExecutionSettings
from orchestrator_client.executors.cgroup_trees import trees
from orchestrator_client.executors.cgroups import Cgroups, open_cgroups

MECHANISMS = ("subreaper", "cgroup.kill", "freezer")


def cgroups_of(mechanism: str, folder: Path) -> Cgroups | None:
    """The groups for payloads in ``folder``; None for the subreaper. Skips what is not there."""
    if mechanism == "subreaper":
        return None
    version = 1 if mechanism == "freezer" else 2
    usable = [tree for tree in trees() if tree.version == version]
    cgroups = open_cgroups(ExecutionSettings(), folder, usable)
    if cgroups is None:
        pytest.skip(f"{mechanism} can't be used here")
    return cgroups
