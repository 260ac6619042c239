"""Files and IPC objects that payloads leave outside their workspaces are removed."""

import asyncio
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from job_orchestrator.client.executors.local import leftovers
from job_orchestrator.client.executors.local.leftovers import DOOMED, IPC
from job_orchestrator.client.workspace import deferred_removal
from job_orchestrator.client.workspace.deferred_removal import DeferredRemoval
from running_client import StartClient

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can start scripts as another user"
)
RANGE = "61021-61024"
OPEN_FOLDERS = tuple(map(Path, ("/tmp", "/var/tmp", "/dev/shm")))  # noqa: S108


@pytest.fixture
def mark() -> Iterator[str]:
    """Prefix of the names of files that a test leaves; they are removed at its end."""
    mark = f"jo-test-{uuid4().hex}"
    yield mark
    for path in left(mark):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def left(mark: str) -> list[Path]:
    return [path for folder in OPEN_FOLDERS for path in folder.glob(f"{mark}*")]


def ipc_objects() -> list[str]:
    """Return the lines about IPC objects of the users of the range."""
    lines = [line for file in IPC.iterdir() for line in file.read_text().splitlines()]
    return [line for line in lines if any(f"6102{digit}" in line.split() for digit in "1234")]


async def test_files_and_ipc_objects_of_a_payloads_user_are_removed_at_its_end(
    open_folder: Path, start_client: StartClient, mark: str
) -> None:
    client = await start_client(DATA_PATH=str(open_folder / "data"), RUN_AS=RANGE)
    await asyncio.to_thread((open_folder / "others").mkdir)
    kept = open_folder / "others" / "kept"
    others = Path(f"/tmp/{mark}-others")  # noqa: S108
    for path in (kept, others):
        await asyncio.to_thread(path.touch)
    await asyncio.to_thread(open_folder.chmod, 0o755)
    payload = await client.run(
        f"for at in /tmp /var/tmp /dev/shm; do echo secret > $at/{mark}-file; done\n"
        f"mkdir -p /tmp/{mark}/deep; touch /tmp/{mark}/deep/file; chmod -R 0 /tmp/{mark}\n"
        f"ln -s {open_folder}/others /tmp/{mark}-link\n"
        "ipcmk -M 4096 -S 1 -Q\n"
    )
    assert payload["status"] == "Completed"
    assert (
        "Shared memory id"
        in (await client.archive(payload["id"])).read(".orchestrator/stdout.txt").decode()
    )
    assert await asyncio.to_thread(left, mark) == [others]
    assert await asyncio.to_thread(ipc_objects) == []
    assert kept.exists()


async def test_large_folder_is_closed_immediately_and_removed_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Makes any folder a large one, and keeps the test out of the folders of the machine.
    monkeypatch.setattr(deferred_removal, "SMALL_ENTRIES", 1)
    monkeypatch.setattr(leftovers, "FOLDERS", (tmp_path, tmp_path / "missing"))
    large = DeferredRemoval("large")
    deep = tmp_path / "of-a-payload" / "deep" / "er"

    def leave_and_remove() -> Path:
        deep.mkdir(parents=True)
        os.chown(tmp_path / "of-a-payload", 61021, 61021)
        (tmp_path / "of-a-payload").chmod(0o777)
        leftovers.remove_leftovers({61021}, large)
        (closed,) = tmp_path.iterdir()
        return closed

    closed = await asyncio.to_thread(leave_and_remove)
    status = closed.lstat()
    assert (status.st_uid, status.st_mode & 0o777) == (0, 0o700)
    await large.run_pass()
    assert await asyncio.to_thread(os.listdir, tmp_path) == []


async def test_start_removes_what_payloads_of_a_previous_start_left(
    open_folder: Path, start_client: StartClient, mark: str
) -> None:
    path = Path(f"/dev/shm/{mark}")  # noqa: S108
    unfinished = Path(f"/var/tmp/{DOOMED}{mark}")  # noqa: S108
    await asyncio.to_thread(path.touch)
    await asyncio.to_thread(os.chown, path, 61022, 61022)
    await asyncio.to_thread(unfinished.mkdir)
    client = await start_client(DATA_PATH=str(open_folder / "data"), RUN_AS=RANGE)
    assert await asyncio.to_thread(left, mark) == []
    await client.eventually(lambda: not unfinished.exists())
