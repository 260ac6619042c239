"""The ZIP of results: its content, its bounds, and scripts that try to make packing fail."""

import asyncio
import errno
import hashlib
import io
import json
import os
import resource
import socket
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from job_orchestrator.client.errors import ArchiveFailed, PackingGivenUp, ResultTooLarge
from job_orchestrator.client.executors.base import Outcome
from job_orchestrator.client.results.manifest import MAX_LISTED
from job_orchestrator.client.results.packer import LARGE_PERMITS, Packer, disk_bytes_of
from job_orchestrator.client.workspace.layout import Workspace, Workspaces
from job_orchestrator.client.workspace.removal import remove_tree
from job_orchestrator.common.errors import StorageFull
from payload_folders import make_endless, new_workspace
from running_client import StartClient

OUTCOME = Outcome(exit_code=3, signal=None, started_at=1.0, ended_at=2.5)


@pytest.fixture
def workspace(workspaces: Workspaces) -> Workspace:
    return new_workspace(workspaces, "one")


def pack(workspace: Workspace, packer: Packer | None = None) -> zipfile.ZipFile:
    asyncio.run((packer or Packer()).pack(workspace, OUTCOME))
    return zipfile.ZipFile(workspace.results)


def manifest(archive: zipfile.ZipFile) -> dict[str, Any]:
    return dict(json.loads(archive.read(".orchestrator/result.json")))


def reasons(archive: zipfile.ZipFile) -> dict[str, str]:
    return {entry["path"]: entry["reason"] for entry in manifest(archive)["skipped"]}


components = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20
).filter(lambda name: name not in (".", "..", ".orchestrator"))


def leftovers(workspace: Workspace) -> set[str]:
    """Names in a payload's folder that were not there when it was submitted."""
    return {path.name for path in workspace.root.iterdir()} - {"work", "tmp"}


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(components, st.binary(max_size=3000), max_size=6))
def test_pack_any_files_gives_their_content(files: Mapping[str, bytes]) -> None:
    with TemporaryWorkspace() as workspace:
        for name, content in files.items():
            (workspace.work / name).write_bytes(content)
        archive = pack(workspace)
        assert archive.testzip() is None  # read with zlib, written with igzip
        found = {name: archive.read(name) for name in archive.namelist()}
        assert json.loads(found.pop(".orchestrator/result.json"))["skipped"] == []
        assert found.pop("run.sh") == files.get("run.sh", b"exit 0\n")
        assert found == {name: data for name, data in files.items() if name != "run.sh"}


class TemporaryWorkspace:
    """A workspace for one example of hypothesis, which can't use fixtures."""

    def __enter__(self) -> Workspace:
        self._folder = Path(tempfile.mkdtemp())
        workspaces = Workspaces(self._folder)
        workspaces.prepare()
        workspaces.clear()
        return new_workspace(workspaces, "one")

    def __exit__(self, *_: object) -> None:
        remove_tree(self._folder)


def test_pack_large_file_compresses_it(workspace: Workspace) -> None:
    line = b"ATOM      1  N   MET A   1      27.340  24.430   2.614  1.00  9.67           N\n"
    (workspace.work / "big.pdb").write_bytes(line * 50_000)
    archive = pack(workspace)
    assert archive.read("big.pdb") == line * 50_000
    entry = archive.getinfo("big.pdb")
    assert entry.compress_type == zipfile.ZIP_DEFLATED
    assert entry.compress_size < entry.file_size / 10


def test_pack_blocks_compressed_concurrently_keeps_their_order(workspace: Workspace) -> None:
    content = b"".join(number.to_bytes(8, "big") for number in range(1_200_000))
    (workspace.work / "large").write_bytes(content + b"rest")
    (workspace.work / "one-block").write_bytes(content[: 1 << 20])
    (workspace.work / "after").write_text("x")
    archive = pack(workspace)
    assert archive.testzip() is None
    assert archive.read("large") == content + b"rest"
    assert archive.read("one-block") == content[: 1 << 20]
    assert archive.read("after") == b"x"


def test_pack_incompressible_files_stores_them(workspace: Workspace) -> None:
    dense = os.urandom(3 << 20)
    (workspace.work / "mixed").write_bytes(dense + b"text " * 500_000 + dense)
    (workspace.work / "medium").write_bytes(dense[:300_000])
    (workspace.work / "small").write_bytes(dense[:10])
    (workspace.work / "empty").touch()
    archive = pack(workspace)
    assert archive.testzip() is None
    assert archive.read("mixed") == dense + b"text " * 500_000 + dense
    assert archive.read("medium") == dense[:300_000]
    assert archive.read("small") == dense[:10]
    for name in ("medium", "small", "empty"):
        assert archive.getinfo(name).compress_type == zipfile.ZIP_STORED
    assert 2 * len(dense) < archive.getinfo("mixed").compress_size < 2 * len(dense) + 100_000


def test_pack_large_files_concurrently_gives_their_content(workspaces: Workspaces) -> None:
    content = b"".join(number.to_bytes(8, "big") for number in range(1_000_000))
    both = [new_workspace(workspaces, name) for name in ("one", "two")]
    for workspace in both:
        (workspace.work / "large").write_bytes(content)
    packer = Packer()

    async def pack_both() -> None:
        await asyncio.gather(*(packer.pack(workspace, OUTCOME) for workspace in both))

    asyncio.run(pack_both())
    for workspace in both:
        assert zipfile.ZipFile(workspace.results).read("large") == content


def test_manifest_holds_the_outcome_of_the_script(workspace: Workspace) -> None:
    workspace.stdout.write_text("said")
    workspace.stderr.write_text("complained")
    archive = pack(workspace)
    assert archive.read(".orchestrator/stdout.txt") == b"said"
    assert archive.read(".orchestrator/stderr.txt") == b"complained"
    assert manifest(archive) == {
        "exit_code": 3,
        "signal": None,
        "started_at": 1.0,
        "ended_at": 2.5,
        "skipped_count": 0,
        "skipped": [],
        "left_out_count": 0,
    }


def test_pack_keeps_modes_empty_folders_and_times_that_zip_can_hold(
    workspace: Workspace,
) -> None:
    program = workspace.work / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o750)
    (workspace.work / "empty" / "folder").mkdir(parents=True)
    for name, seconds in (("old", -1e10), ("ancient", 0), ("future", 2**40)):
        path = workspace.work / name
        path.touch()
        os.utime(path, (seconds, seconds))
    archive = pack(workspace)
    assert (archive.getinfo("program").external_attr >> 16) & 0o777 == 0o750
    assert "empty/folder/" in archive.namelist()
    assert archive.getinfo("old").date_time[0] == 1980
    assert archive.getinfo("ancient").date_time[0] == 1980
    assert archive.getinfo("future").date_time[0] == 2107


def test_trap_32_and_33_what_is_no_file_is_skipped_and_listed(workspace: Workspace) -> None:
    work = workspace.work
    os.mkfifo(work / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        # By a short relative name: socket paths may have 107 bytes.
        descriptor = os.open(work, os.O_RDONLY)
        listener.bind(f"/proc/self/fd/{descriptor}/socket")
        os.close(descriptor)
    (work / "secret").symlink_to("/etc/hostname")
    (work / "up").symlink_to("..")
    (work / "dangling").symlink_to("nowhere")
    (work / "loop").symlink_to("loop")
    (work / "folder").mkdir()
    (work / "folder" / "file").write_text("x")
    (work / "to-folder").symlink_to("folder")
    (work / "to-file").symlink_to(work / "folder" / "file")
    (work / os.fsdecode(b"bad\xff")).touch()
    (work / ".orchestrator").mkdir()
    (work / ".orchestrator" / "result.json").write_text('{"exit_code": 0}')
    archive = pack(workspace)
    assert set(archive.namelist()) == {
        "run.sh",
        "folder/file",
        "to-file",
        ".orchestrator/result.json",
    }
    assert archive.read("to-file") == b"x"
    assert manifest(archive)["exit_code"] == 3
    assert reasons(archive) == {
        "fifo": "it is not a regular file",
        "socket": "it is a socket or device",
        "secret": "it is a link that leads outside",
        "up": "it is a link that leads outside",
        "dangling": "No such file or directory",
        "loop": "it is a symbolic link",
        "to-folder": "it is not a regular file",
        "bad\\udcff": "its name is not UTF-8",
        ".orchestrator": "the name is reserved",
    }


def test_manifest_with_many_skipped_files_lists_the_first(workspace: Workspace) -> None:
    for number in range(MAX_LISTED + 5):
        (workspace.work / f"link{number}").symlink_to("nowhere")
    found = manifest(pack(workspace))
    assert found["skipped_count"] == MAX_LISTED + 5
    assert len(found["skipped"]) == MAX_LISTED


def test_pack_folders_nested_beyond_the_recursion_limit_succeeds(workspace: Workspace) -> None:
    deep = workspace.work
    for _ in range(1200):
        deep = deep / "d"
        deep.mkdir()
    (deep / "treasure").write_text("x")
    try:
        archive = pack(workspace)
        assert archive.read("/".join("d" * 1200) + "/treasure") == b"x"
    finally:
        remove_tree(workspace.work)  # pytest, which removes old folders, can't


@pytest.fixture
def files_up_to_64_mb() -> Iterator[None]:
    """Limit the size of files, so that an endless ZIP fails the test and does not fill the disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 26, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("files_up_to_64_mb")
def test_trap_31_file_that_grows_while_it_is_packed_ends(workspace: Workspace) -> None:
    # The archive itself is a file that grows while it is packed.
    (workspace.work / "a").write_bytes(os.urandom(3 << 20))

    def link(archive: IO[bytes]) -> int:
        unfinished = Path(f"/proc/self/fd/{archive.fileno()}").readlink()
        (workspace.work / "b").hardlink_to(unfinished)
        return disk_bytes_of(archive)

    archive = pack(workspace, Packer(disk_bytes=link))
    assert archive.testzip() is None
    assert archive.getinfo("b").file_size < 4 << 20


def test_trap_34_zip_lies_beside_the_work_folder(workspace: Workspace) -> None:
    pack(workspace)
    assert not workspace.results.is_relative_to(workspace.work)
    assert leftovers(workspace) == {"results.zip"}


def test_trap_37_full_disk_is_told_and_nothing_is_left(workspace: Workspace) -> None:
    (workspace.work / "random").write_bytes(os.urandom(1 << 20))
    disk_full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def disk_bytes(file: IO[bytes]) -> int:
        raise disk_full

    with pytest.raises(StorageFull):
        pack(workspace, Packer(disk_bytes=disk_bytes))
    assert leftovers(workspace) == set()


def test_pack_workspace_removed_by_its_script_fails(
    workspace: Workspace,
) -> None:
    remove_tree(workspace.root)
    with pytest.raises(ArchiveFailed, match="could not be packed"):
        pack(workspace)
    workspace.root.mkdir()
    assert reasons(pack(workspace)) == {".": "No such file or directory"}


async def test_pack_partial_gives_an_unnamed_file_without_exit_code(workspace: Workspace) -> None:
    file, sha256 = await Packer().pack_partial(workspace)
    with file:
        content = await asyncio.to_thread(file.read)
    assert sha256 == hashlib.sha256(content).digest()
    archive = zipfile.ZipFile(io.BytesIO(content))
    assert await asyncio.to_thread(leftovers, workspace) == set()
    assert manifest(archive)["exit_code"] is None
    assert archive.read("run.sh") == b"exit 0\n"


async def test_pack_after_stop_fails_and_leaves_no_file(workspace: Workspace) -> None:
    packer = Packer()
    packer.stop()
    with pytest.raises(ArchiveFailed, match="The client stops"):
        await packer.pack(workspace, OUTCOME)
    with pytest.raises(ArchiveFailed, match="The client stops"):
        await packer.pack_partial(workspace)
    assert await asyncio.to_thread(leftovers, workspace) == set()


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir])
async def test_pack_empty_entry_after_stop_fails(
    workspace: Workspace, make: Callable[[Path], None]
) -> None:
    (workspace.work / "run.sh").unlink()
    await asyncio.to_thread(make, workspace.work / "entry")
    packer = Packer()
    packer.stop()
    with pytest.raises(ArchiveFailed, match="The client stops"):
        await packer.pack(workspace, OUTCOME)


def test_pack_with_output_only_set_keeps_the_output_without_waiting_for_a_permit(
    workspaces: Workspaces,
) -> None:
    made = [new_workspace(workspaces, str(number)) for number in range(LARGE_PERMITS + 1)]
    for workspace in made:
        workspace.stdout.write_bytes(b"so far")
        make_endless(workspace.work)

    async def pack_all() -> list[object]:
        packer, output_only = Packer(), asyncio.Event()
        packings = [packer.pack(workspace, OUTCOME, output_only) for workspace in made]
        asyncio.get_running_loop().call_soon(output_only.set)
        return list(await asyncio.gather(*packings, return_exceptions=True))

    for workspace, outcome in zip(made, asyncio.run(pack_all()), strict=True):
        assert isinstance(outcome, PackingGivenUp)
        assert leftovers(workspace) == {"results.zip", "stdout.txt"}
        archive = zipfile.ZipFile(workspace.results)
        assert archive.read(".orchestrator/stdout.txt") == b"so far"
        assert reasons(archive) == {".": "only the output of run.sh was kept"}


def test_pack_results_over_the_size_limit_keeps_only_the_output(
    workspace: Workspace,
) -> None:
    (workspace.work / "big").write_bytes(os.urandom(300_000))
    workspace.stdout.write_bytes(os.urandom(90_000))
    workspace.stderr.write_bytes(b"why")
    with pytest.raises(ResultTooLarge, match=r"larger than 100 kB \(MAX_RESULT_SIZE\)"):
        asyncio.run(Packer(100_000).pack(workspace, OUTCOME))
    assert workspace.results.stat().st_size < 100_000
    archive = zipfile.ZipFile(workspace.results)
    assert set(archive.namelist()) == {
        f".orchestrator/{name}" for name in ("stdout.txt", "stderr.txt", "result.json")
    }
    assert archive.read(".orchestrator/stderr.txt") == b"why"
    assert len(archive.read(".orchestrator/stdout.txt")) == 50_000
    assert reasons(archive)[".orchestrator/stdout.txt"] == "cut off after 50000 bytes"
    assert "larger than 100 kB" in reasons(archive)["."]
    # A little more, and all of it is there.
    asyncio.run(Packer(500_000).pack(workspace, OUTCOME))
    assert "big" in zipfile.ZipFile(workspace.results).namelist()


def test_size_limit_counts_the_directory_of_the_zip(workspace: Workspace) -> None:
    for number in range(300):
        (workspace.work / f"empty-{number}").mkdir()
    with pytest.raises(ResultTooLarge):
        asyncio.run(Packer(20_000).pack(workspace, OUTCOME))
    assert workspace.results.stat().st_size < 20_000


async def test_payload_with_results_over_the_size_limit_ends_failed(
    start_client: StartClient,
) -> None:
    client = await start_client(MAX_RESULT_SIZE="100kB")
    payload = await client.run("echo so far; head -c 300000 /dev/urandom > big; exit 0\n")
    assert (payload["status"], payload["exit_code"]) == ("Failed", 0)
    assert payload["message"].startswith("The results are larger than 100 kB")
    archive = await client.archive(payload["id"])
    assert archive.read(".orchestrator/stdout.txt") == b"so far\n"
    assert "big" not in archive.namelist()


def test_pack_files_larger_than_the_disk_keeps_only_the_output(workspace: Workspace) -> None:
    """One call of truncate, or links to one file, make results of any size."""
    big = workspace.work / "big"
    with big.open("wb") as file:
        file.truncate(3 << 20)
    for number in range(4):
        (workspace.work / f"link{number}").symlink_to("big")
    workspace.stdout.write_text("said")
    assert "link3" in pack(workspace).namelist()
    packer = Packer(disk_bytes=lambda _: (16 << 20) - 4096)
    assert "link3" in pack(workspace, packer).namelist()
    (workspace.work / "link4").symlink_to("big")
    with pytest.raises(ResultTooLarge, match="larger than the client's disk"):
        pack(workspace, packer)
    with zipfile.ZipFile(workspace.results) as archive:
        assert archive.read(".orchestrator/stdout.txt") == b"said"
        assert "run.sh" not in archive.namelist()


def test_work_folder_that_became_a_link_is_not_followed(
    workspace: Workspace, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "secret").write_text("of somebody else")
    remove_tree(workspace.work)
    workspace.work.symlink_to(elsewhere)
    archive = pack(workspace)
    assert archive.namelist() == [".orchestrator/result.json"]
    assert list(reasons(archive)) == ["."]
