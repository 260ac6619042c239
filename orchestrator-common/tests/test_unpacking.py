"""Results are unpacked where they belong, and nowhere else."""

import stat
import zipfile
from pathlib import Path

import pytest

from orchestrator_common.api import LocalStorageFailed
from orchestrator_common.command.unpacking import UnsafeArchive, unpack


def archive(path: Path, *entries: zipfile.ZipInfo | str) -> Path:
    with zipfile.ZipFile(path, "w") as made:
        for entry in entries:
            made.writestr(entry, b"x")
    return path


def link(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


@pytest.mark.parametrize(
    "entry",
    ["../out", "/abs", "a/../../out", "a\\..\\out", ".orchestrator/../../out", "C:\\x", link("l")],
)
def test_archive_that_leads_elsewhere_is_not_unpacked(
    tmp_path: Path, entry: zipfile.ZipInfo | str
) -> None:
    made = archive(tmp_path / "x.zip", "fine", entry)
    with pytest.raises(UnsafeArchive, match="not safe to unpack"):
        unpack(made, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["x.zip"]


def test_unpacking_replaces_an_empty_folder_and_nothing_else(tmp_path: Path) -> None:
    script = zipfile.ZipInfo("bin/script")
    script.external_attr = (stat.S_IFREG | 0o4755) << 16
    made = archive(tmp_path / "x.zip", ".orchestrator/stdout.txt", script)
    (tmp_path / "empty").mkdir()
    assert unpack(made, tmp_path / "empty") == 2
    assert (tmp_path / "empty" / ".orchestrator" / "stdout.txt").read_bytes() == b"x"
    mode = (tmp_path / "empty" / "bin" / "script").stat().st_mode
    assert mode & 0o100
    assert not mode & (stat.S_ISUID | stat.S_IWOTH)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    for taken in ("empty", "link", "file"):
        with pytest.raises(LocalStorageFailed, match="is there already"):
            unpack(made, tmp_path / taken)
    (tmp_path / "cut.zip").write_bytes(made.read_bytes()[:-30])
    with pytest.raises(LocalStorageFailed, match="no whole ZIP"):
        unpack(tmp_path / "cut.zip", tmp_path / "new")
    assert not (tmp_path / "new").exists()
