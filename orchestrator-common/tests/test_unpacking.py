"""Results are unpacked where they belong, and nowhere else."""

import shutil
import stat
import zipfile
from pathlib import Path

import pytest

from job_orchestrator.cli.unpacking import UnsafeArchive, unpack
from job_orchestrator.sdk import LocalStorageFailed


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


def _with_sizes(archive: Path, told: int) -> None:
    """Let the directory of a ZIP say ``told`` of the size of each entry."""
    content, at = bytearray(archive.read_bytes()), 0
    while (at := content.find(b"PK\1\2", at)) >= 0:
        content[at + 24 : at + 28] = told.to_bytes(4, "little")
        at += 46
    archive.write_bytes(content)


def test_archive_that_has_no_room_when_unpacked_is_not_begun(tmp_path: Path) -> None:
    made, size = tmp_path / "made.zip", 0xFFFFFFFE
    with zipfile.ZipFile(made, "w") as archive:
        for number in range(shutil.disk_usage(tmp_path).total // size + 1):
            archive.writestr(f"{number}", "x")
    _with_sizes(made, size)
    with pytest.raises(LocalStorageFailed, match="GB when it is unpacked, and there is room for"):
        unpack(made, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["made.zip"]


@pytest.mark.parametrize("told", [10, 100_000_000])
def test_archive_that_lies_about_its_sizes_is_given_up(tmp_path: Path, told: int) -> None:
    made = tmp_path / "made.zip"
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(10_000_000))
    _with_sizes(made, told)
    with pytest.raises(LocalStorageFailed, match="is no whole ZIP"):
        unpack(made, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["made.zip"]


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
