"""Results that are large, or only seem so, keep nobody's small ones waiting."""

import asyncio
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from job_orchestrator.client.errors import ArchiveFailed, PackingTookTooLong
from job_orchestrator.client.executors.base import Outcome
from job_orchestrator.client.results import packer as archive_module
from job_orchestrator.client.results import queue as packing_turns
from job_orchestrator.client.results.packer import LARGE_TURNS, Packer
from job_orchestrator.client.workspace.layout import Workspace, Workspaces
from payload_folders import make_endless, new_workspace, until

CPUS = os.cpu_count() or 1
AT_ONCE = Outcome(exit_code=0, signal=None, started_at=1.0, ended_at=1.0)


def bytes_read() -> int:
    """What this process has read from files so far."""
    counts = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in counts if line.startswith("rchar")).split()[1])


def test_holes_are_not_read_and_come_out_as_zeros(workspaces: Workspaces) -> None:
    workspace = new_workspace(workspaces, "sparse")
    mebibyte = 1 << 20
    with (workspace.work / "mixed").open("wb") as file:
        for place in (0, 5 * mebibyte + 17, 20 * mebibyte, 33 * mebibyte - 4):
            file.seek(place)
            file.write(b"data")
        file.truncate(40 * mebibyte + 1)
    huge = 5 << 30
    with (workspace.work / "huge").open("wb") as file:
        file.truncate(huge)
    before = bytes_read()
    asyncio.run(Packer().pack(workspace, AT_ONCE))
    assert bytes_read() - before < 16 * mebibyte
    with zipfile.ZipFile(workspace.results) as archive:
        assert archive.read("mixed") == (workspace.work / "mixed").read_bytes()
        assert archive.getinfo("huge").file_size == huge
        assert archive.getinfo("huge").compress_size < huge // 900


def endless_workspaces(workspaces: Workspaces, count: int) -> list[Workspace]:
    made = [new_workspace(workspaces, f"large{number}") for number in range(count)]
    make_endless(made[0].work)
    for workspace in made[1:]:
        copy = workspace.work / "copy"
        copy.mkdir()
        for path in made[0].work.iterdir():
            os.link(path, copy / path.name, follow_symlinks=False)
    return made


async def test_small_results_are_packed_beside_any_number_of_large_ones(
    workspaces: Workspaces,
) -> None:
    made = await asyncio.to_thread(endless_workspaces, workspaces, LARGE_TURNS + CPUS + 1)
    packer = Packer()
    large = [asyncio.create_task(packer.pack(workspace, AT_ONCE)) for workspace in made]
    await until(lambda: len(list(workspaces.root.glob("*/.results.zip.tmp"))) >= LARGE_TURNS)
    small = await asyncio.to_thread(new_workspace, workspaces, "small")
    await packer.pack(small, AT_ONCE)
    assert not any(task.done() for task in large)
    packer.stop()
    for outcome in await asyncio.gather(*large, return_exceptions=True):
        assert isinstance(outcome, ArchiveFailed)


def many_files(workspace: Workspace) -> None:
    for number in range(packing_turns.SMALL_ENTRIES):
        (workspace.work / str(number)).touch()


def many_folders(workspace: Workspace) -> None:
    (workspace.work / "/".join("d" * packing_turns.SMALL_ENTRIES)).mkdir(parents=True)


def many_bytes(workspace: Workspace) -> None:
    with (workspace.work / "big").open("wb") as file:
        file.truncate(packing_turns.SMALL_BYTES)


@pytest.mark.parametrize("make", [many_files, many_folders, many_bytes])
def test_large_results_may_take_some_time_only(
    workspaces: Workspaces, make: Callable[[Workspace], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing_turns, "SMALL_ENTRIES", 20)
    workspace = new_workspace(workspaces, "large")
    workspace.stdout.write_text("said")
    make(workspace)
    asyncio.run(Packer().pack(workspace, AT_ONCE))
    with zipfile.ZipFile(workspace.results) as archive:
        assert archive.testzip() is None
        assert "run.sh" in archive.namelist()
    monkeypatch.setattr(archive_module, "LEAST_LIMIT_S", 0.0)
    with pytest.raises(PackingTookTooLong, match="longer than 0 s to pack; only the output"):
        asyncio.run(Packer().pack(workspace, AT_ONCE))
    with zipfile.ZipFile(workspace.results) as archive:
        assert archive.read(".orchestrator/stdout.txt") == b"said"
        assert "run.sh" not in archive.namelist()
    # A script that ran for long has a long time.
    asyncio.run(Packer().pack(workspace, Outcome(0, None, started_at=1.0, ended_at=1000.0)))


def test_small_results_know_no_limit(
    workspaces: Workspaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_module, "LEAST_LIMIT_S", 0.0)
    asyncio.run(Packer().pack(new_workspace(workspaces, "small"), AT_ONCE))
