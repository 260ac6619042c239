"""Scheduling of packing: small results never wait for large ones."""

import asyncio
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from job_orchestrator.client.errors import ArchiveFailed, PackingTookTooLong
from job_orchestrator.client.executors.base import Outcome
from job_orchestrator.client.results.packer import LARGE_PERMITS, Packer
from job_orchestrator.client.results.queue import PackingLimits
from job_orchestrator.client.workspace.layout import Workspace, Workspaces
from payload_folders import make_endless, new_workspace, until

CPUS = os.cpu_count() or 1
SHORT_RUN = Outcome(exit_code=0, signal=None, started_at=1.0, ended_at=1.0)
LONG_RUN = Outcome(exit_code=0, signal=None, started_at=1.0, ended_at=1000.0)
SMALL_ENTRIES, SMALL_BYTES = 20, 1 << 20
LIMITS = PackingLimits(SMALL_BYTES, SMALL_ENTRIES)
NO_TIME = PackingLimits(SMALL_BYTES, SMALL_ENTRIES, min_time_s=0.0)


def bytes_read() -> int:
    """Return the bytes that this process has read from files."""
    counts = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in counts if line.startswith("rchar")).split()[1])


def test_pack_sparse_files_does_not_read_their_holes(workspaces: Workspaces) -> None:
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
    asyncio.run(Packer().pack(workspace, SHORT_RUN))
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


async def test_pack_small_results_does_not_wait_for_any_number_of_large_ones(
    workspaces: Workspaces,
) -> None:
    made = await asyncio.to_thread(endless_workspaces, workspaces, LARGE_PERMITS + CPUS + 1)
    packer = Packer()
    large = [asyncio.create_task(packer.pack(workspace, SHORT_RUN)) for workspace in made]
    await until(lambda: len(list(workspaces.root.glob("*/.results.*"))) >= LARGE_PERMITS)
    small = await asyncio.to_thread(new_workspace, workspaces, "small")
    await packer.pack(small, SHORT_RUN)
    assert not any(task.done() for task in large)
    packer.stop()
    for outcome in await asyncio.gather(*large, return_exceptions=True):
        assert isinstance(outcome, ArchiveFailed)


def many_files(workspace: Workspace) -> None:
    for number in range(SMALL_ENTRIES):
        (workspace.work / str(number)).touch()


def many_folders(workspace: Workspace) -> None:
    (workspace.work / "/".join("d" * SMALL_ENTRIES)).mkdir(parents=True)


def many_bytes(workspace: Workspace) -> None:
    with (workspace.work / "big").open("wb") as file:
        file.truncate(SMALL_BYTES)


@pytest.mark.parametrize("make", [many_files, many_folders, many_bytes])
def test_pack_large_results_is_limited_in_time(
    workspaces: Workspaces, make: Callable[[Workspace], None]
) -> None:
    workspace = new_workspace(workspaces, "large")
    workspace.stdout.write_text("said")
    make(workspace)
    asyncio.run(Packer(limits=LIMITS).pack(workspace, SHORT_RUN))
    with zipfile.ZipFile(workspace.results) as archive:
        assert archive.testzip() is None
        assert "run.sh" in archive.namelist()
    with pytest.raises(PackingTookTooLong, match="longer than 0 s to pack; only the output"):
        asyncio.run(Packer(limits=NO_TIME).pack(workspace, SHORT_RUN))
    with zipfile.ZipFile(workspace.results) as archive:
        assert archive.read(".orchestrator/stdout.txt") == b"said"
        assert "run.sh" not in archive.namelist()
    # The results of a script that ran for long have as much time.
    asyncio.run(Packer(limits=NO_TIME).pack(workspace, LONG_RUN))


def test_pack_small_results_has_no_time_limit(workspaces: Workspaces) -> None:
    asyncio.run(Packer(limits=NO_TIME).pack(new_workspace(workspaces, "small"), SHORT_RUN))
