"""Small results in memory: what is kept there, and within which bounds."""

import asyncio
import io
import os
import subprocess
import zipfile

import pytest

from job_orchestrator.client.executors.base import Outcome
from job_orchestrator.client.results.kept import KeptResults
from job_orchestrator.client.results.packer import IN_MEMORY, Packer
from job_orchestrator.client.workspace.layout import Workspace, Workspaces
from payload_folders import new_workspace

OUTCOME = Outcome(exit_code=0, signal=None, started_at=1.0, ended_at=2.0)


@pytest.fixture
def workspace(workspaces: Workspaces) -> Workspace:
    return new_workspace(workspaces, "one")


@pytest.fixture
def kept() -> KeptResults:
    return KeptResults(max_bytes=1000)


def test_results_are_kept_until_they_are_dropped(kept: KeptResults) -> None:
    assert kept.keep("one", b"first")
    assert kept.get("one") == b"first"
    kept.drop("one")
    assert kept.get("one") is None
    kept.drop("one")


def test_all_results_together_are_within_the_limit(kept: KeptResults) -> None:
    assert kept.keep("one", bytes(600))
    assert not kept.keep("two", bytes(600))
    assert kept.get("two") is None
    assert kept.keep("one", bytes(1000))  # in place of the earlier ones
    kept.drop("one")
    assert kept.keep("two", bytes(1000))


def test_results_that_no_longer_fit_are_not_replaced_by_earlier_ones(kept: KeptResults) -> None:
    assert kept.keep("one", b"earlier")
    assert not kept.keep("one", bytes(1001))
    assert kept.get("one") is None
    assert kept.keep("two", bytes(1000))


async def test_pack_few_small_files_needs_no_file_and_gives_the_same_zip(
    workspace: Workspace,
) -> None:
    (workspace.work / "out").write_text("well")
    workspace.stdout.write_text("said")
    kept = KeptResults()
    digest = await Packer(kept=kept).pack(workspace, OUTCOME)
    content = kept.get(workspace.root.name)
    assert content is not None
    assert not workspace.results.exists()
    on_disk = await Packer().pack(workspace, OUTCOME)
    assert len(digest) == len(on_disk)
    archive, other = zipfile.ZipFile(io.BytesIO(content)), zipfile.ZipFile(workspace.results)
    assert archive.testzip() is None
    assert [(entry.filename, entry.CRC) for entry in archive.infolist()] == [
        (entry.filename, entry.CRC) for entry in other.infolist()
    ]


@pytest.mark.parametrize("reason", ["bytes", "packed bytes", "entries", "memory"])
async def test_pack_beyond_a_limit_of_memory_writes_a_file(
    workspace: Workspace, reason: str
) -> None:
    kept = KeptResults(max_bytes=10 if reason == "memory" else 1 << 20)
    if reason == "bytes":
        (workspace.work / "out").write_bytes(bytes(IN_MEMORY.small_bytes))
    elif reason == "packed bytes":
        (workspace.work / "out").write_bytes(os.urandom(70_000))
    elif reason == "entries":
        for number in range(IN_MEMORY.small_entries):
            (workspace.work / f"out{number}").touch()
    await Packer(kept=kept).pack(workspace, OUTCOME)
    assert kept.get(workspace.root.name) is None
    assert zipfile.ZipFile(workspace.results).testzip() is None


@pytest.mark.parametrize("place", ["work/link", "stdout.txt", "selection.json"])
async def test_pack_what_has_a_link_leaves_the_event_loop(workspace: Workspace, place: str) -> None:
    # The link could lead to a file system that never answers.
    (workspace.work / "out").write_text("well")
    (workspace.root / place).symlink_to("out")
    kept = KeptResults()
    await Packer(kept=kept).pack(workspace, OUTCOME)
    assert kept.get(workspace.root.name) is None
    assert "out" in zipfile.ZipFile(workspace.results).namelist()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a file system")
def test_pack_what_has_a_mount_leaves_the_event_loop(workspace: Workspace) -> None:
    mount = workspace.work / "mount"
    mount.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "none", mount], check=False)
    if mounted.returncode != 0:
        pytest.skip("nothing can be mounted here")
    kept = KeptResults()
    try:
        asyncio.run(Packer(kept=kept).pack(workspace, OUTCOME))
    finally:
        subprocess.run(["umount", mount], check=True)
    assert kept.get(workspace.root.name) is None
    assert workspace.results.exists()
