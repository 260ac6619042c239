"""The payloads' folders: their layout and their removal, which touches no other file."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from job_orchestrator.client.workspace.layout import Workspaces
from job_orchestrator.client.workspace.mounts import MountTable
from job_orchestrator.client.workspace.removal import remove_tree
from job_orchestrator.common.errors import StartupError
from payload_folders import new_workspace


def test_clear_removes_the_payloads_of_the_previous_run_only(tmp_path: Path) -> None:
    for other in ("0f6e7b64-3f0b-4d5e-8c55-7f2b8b0d5a11/input/run.sh", "db.sqlite", "next-id"):
        (tmp_path / other).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / other).write_text("of another program")
    workspaces = Workspaces(tmp_path)
    workspaces.prepare()
    workspaces.clear()
    new_workspace(workspaces, "left")
    workspaces.of("half-arrived").work.mkdir(parents=True)
    (workspaces.root / "file").touch()
    workspaces.clear()
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == [
        "0f6e7b64-3f0b-4d5e-8c55-7f2b8b0d5a11",
        "0f6e7b64-3f0b-4d5e-8c55-7f2b8b0d5a11/input",
        "0f6e7b64-3f0b-4d5e-8c55-7f2b8b0d5a11/input/run.sh",
        "db.sqlite",
        "next-id",
        "payloads",
    ]


def test_lock_of_a_second_client_on_the_same_folder_is_refused(workspaces: Workspaces) -> None:
    with (
        workspaces.locked(),
        pytest.raises(StartupError, match="Another jo-client uses DATA_PATH"),
        Workspaces(workspaces.data_path).locked(),
    ):
        pass
    with workspaces.locked():
        pass


def test_prepare_folder_that_can_not_be_created_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartupError, match=r"DATA_PATH is '.*file', which can't be written"):
        Workspaces(tmp_path / "file").prepare()


def test_remove_concurrently_removes_everything(workspaces: Workspaces) -> None:
    workspace = new_workspace(workspaces, "one")
    for number in range(200):
        (workspace.work / f"d{number}").mkdir()
        (workspace.work / f"d{number}" / "f").touch()
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(workspaces.remove, "one") for _ in range(4)]:
            done.result()
    assert list(workspaces.root.iterdir()) == []


def test_remove_folders_nested_beyond_the_longest_path_succeeds(workspaces: Workspaces) -> None:
    workspace = new_workspace(workspaces, "deep")
    here = os.open(workspace.work, os.O_RDONLY)
    for _ in range(1200):  # longer than the longest path
        os.mkdir("ddd", dir_fd=here)
        below = os.open("ddd", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    workspaces.remove("deep")
    assert list(workspaces.root.iterdir()) == []


def test_remove_tree_stops_when_a_folder_is_moved(tmp_path: Path) -> None:
    """A process that survived its payload could do this."""
    top, elsewhere = tmp_path / "top", tmp_path / "elsewhere"
    for name in ("one", "two"):
        (top / name / "deep").mkdir(parents=True)
        (top / name / "deep" / "file").touch()
        (elsewhere / name).mkdir(parents=True)
        (elsewhere / name / "file").touch()
    kept = set(elsewhere.rglob("*"))
    found = []

    def move() -> None:
        found.append(1)
        if len(found) == 4:  # both folders, the folder in one of them, and its file
            for name in ("one", "two"):
                (top / name).rename(elsewhere / f"moved-{name}")

    with pytest.raises(OSError, match="Moved during its removal"):
        remove_tree(top, on_entry=move)
    assert kept <= set(elsewhere.rglob("*"))


@pytest.fixture
def unprivileged_folder() -> Iterator[Path]:
    """A folder of an unprivileged user: permissions do not restrict root."""
    folder = Path(tempfile.mkdtemp())
    is_root = os.geteuid() == 0
    if is_root:
        os.chown(folder, 65534, 65534)
        os.seteuid(65534)
    try:
        yield folder
    finally:
        if is_root:
            os.seteuid(0)
        shutil.rmtree(folder)


def test_remove_tree_folders_without_permissions_succeeds(unprivileged_folder: Path) -> None:
    top = unprivileged_folder / "top"
    (top / "a" / "b" / "c").mkdir(parents=True)
    (top / "a" / "b" / "file").touch()
    (top / "a" / "b").chmod(0)
    (top / "a").chmod(0o500)
    top.chmod(0)
    remove_tree(top)
    assert list(unprivileged_folder.iterdir()) == []


def test_clear_sets_aside_files_of_another_user(unprivileged_folder: Path) -> None:
    workspaces = Workspaces(unprivileged_folder)
    workspaces.prepare()
    if os.getuid() != 0:
        pytest.skip("only root can leave files of another user")
    os.seteuid(0)
    (workspaces.root / "of-root").mkdir()
    (workspaces.root / "of-root" / "file").touch()
    os.seteuid(65534)
    new_workspace(workspaces, "own")
    (left,) = workspaces.clear()
    assert left.name.startswith("leftover.")
    assert list(workspaces.root.iterdir()) == [left]
    assert workspaces.clear() == [left]


@pytest.fixture
def mounted(workspaces: Workspaces) -> Iterator[Path]:
    """A folder with a file, outside the workspaces, that is mounted in a work folder."""
    kept = workspaces.data_path / "kept"
    kept.mkdir()
    (kept / "file").touch()
    point = new_workspace(workspaces, "mounts").work / "a name with spaces"
    point.mkdir()
    mount = ["mount", "--bind", str(kept), str(point)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False).returncode != 0:
        pytest.skip("a folder can't be mounted here")
    yield kept
    subprocess.run(["umount", "--lazy", str(point)], check=False, stderr=-3)


def test_trap_67_clear_detaches_mounts_and_keeps_what_was_mounted(
    workspaces: Workspaces, mounted: Path
) -> None:
    assert workspaces.clear() == []
    assert list(workspaces.root.iterdir()) == []
    assert (mounted / "file").exists()


def test_trap_67_clear_sets_aside_immutable_files_and_removes_them_later(
    workspaces: Workspaces,
) -> None:
    file = new_workspace(workspaces, "immutable").work / "file"
    file.touch()
    if subprocess.run(["chattr", "+i", file], check=False).returncode != 0:
        pytest.skip("files can't be made immutable here")
    (left,) = workspaces.clear()
    immutable = left / "work" / "file"
    assert left.name.startswith("leftover.")
    assert workspaces.clear() == [left]
    subprocess.run(["chattr", "-i", immutable], check=True)
    assert workspaces.clear() == []
    assert list(workspaces.root.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_mount_table_notices_a_mount_and_its_end(tmp_path: Path) -> None:
    table = MountTable()
    place = tmp_path / "payload-with-a-mount"
    place.mkdir()
    assert not table.names(place.name)
    subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True)
    try:
        assert table.names(place.name)
    finally:
        subprocess.run(["umount", place], check=True)
    assert not table.names(place.name)
