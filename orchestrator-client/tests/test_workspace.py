"""The payloads' folders: nothing but their own is ever removed, and that always can be."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from job_orchestrator.client.workspace.layout import Workspaces
from job_orchestrator.client.workspace.removal import remove_tree
from job_orchestrator.common.errors import StartupError
from payload_folders import new_workspace


def test_start_removes_what_an_earlier_life_left_and_nothing_else(tmp_path: Path) -> None:
    for other in ("0f6e7b64-3f0b-4d5e-8c55-7f2b8b0d5a11/input/run.sh", "db.sqlite", "next-id"):
        (tmp_path / other).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / other).write_text("of somebody else")
    workspaces = Workspaces(tmp_path)
    workspaces.prepare()
    workspaces.clear()
    new_workspace(workspaces, "left")
    workspaces.of("half-arrived").work.mkdir(parents=True)
    (workspaces.root / "stray").touch()
    workspaces.clear()
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == [
        "0f6e7b64-3f0b-4d5e-8c55-7f2b8b0d5a11",
        "0f6e7b64-3f0b-4d5e-8c55-7f2b8b0d5a11/input",
        "0f6e7b64-3f0b-4d5e-8c55-7f2b8b0d5a11/input/run.sh",
        "db.sqlite",
        "next-id",
        "payloads",
    ]


def test_second_client_on_the_same_folder_is_refused(workspaces: Workspaces) -> None:
    with (
        workspaces.locked(),
        pytest.raises(StartupError, match="Another jo-client uses DATA_PATH"),
        Workspaces(workspaces.data_path).locked(),
    ):
        pass
    with workspaces.locked():
        pass


def test_folder_that_can_not_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartupError, match=r"DATA_PATH is '.*file', which can't be written"):
        Workspaces(tmp_path / "file").prepare()


def test_removing_twice_at_once_removes_everything(workspaces: Workspaces) -> None:
    workspace = new_workspace(workspaces, "one")
    for number in range(200):
        (workspace.work / f"d{number}").mkdir()
        (workspace.work / f"d{number}" / "f").touch()
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(workspaces.remove, "one") for _ in range(4)]:
            done.result()
    assert list(workspaces.root.iterdir()) == []


def test_any_depth_of_folders_is_removed(workspaces: Workspaces) -> None:
    workspace = new_workspace(workspaces, "deep")
    here = os.open(workspace.work, os.O_RDONLY)
    for _ in range(1200):  # more than a path may have
        os.mkdir("ddd", dir_fd=here)
        below = os.open("ddd", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    workspaces.remove("deep")
    assert list(workspaces.root.iterdir()) == []


def test_removal_does_not_go_on_where_a_folder_was_moved_to(tmp_path: Path) -> None:
    """As a process could do that survived its payload."""
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
        if len(found) == 4:  # both, the folder in one of them, and the file in that
            for name in ("one", "two"):
                (top / name).rename(elsewhere / f"moved-{name}")

    with pytest.raises(OSError, match="Moved while it was removed"):
        remove_tree(top, find=move)
    assert kept <= set(elsewhere.rglob("*"))


@pytest.fixture
def unprivileged_folder() -> Iterator[Path]:
    """A folder of a user whom permissions mean something to: for root there are none."""
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


def test_folders_without_permissions_are_removed(unprivileged_folder: Path) -> None:
    top = unprivileged_folder / "top"
    (top / "a" / "b" / "c").mkdir(parents=True)
    (top / "a" / "b" / "file").touch()
    (top / "a" / "b").chmod(0)
    (top / "a").chmod(0o500)
    top.chmod(0)
    remove_tree(top)
    assert list(unprivileged_folder.iterdir()) == []


def test_start_says_what_it_can_not_remove(unprivileged_folder: Path) -> None:
    workspaces = Workspaces(unprivileged_folder)
    workspaces.prepare()
    if os.getuid() != 0:
        pytest.skip("only root can leave something that belongs to somebody else")
    os.seteuid(0)
    (workspaces.root / "of-root").mkdir()
    (workspaces.root / "of-root" / "file").touch()
    os.seteuid(65534)
    with pytest.raises(StartupError, match="files of an earlier start can't be removed"):
        workspaces.clear()
