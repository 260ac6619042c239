"""Unpacking of results: nothing outside of the folder, nothing overwritten."""

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
def test_archive_with_an_unsafe_name_is_not_unpacked(
    tmp_path: Path, entry: zipfile.ZipInfo | str
) -> None:
    made = archive(tmp_path / "x.zip", "fine", entry)
    with pytest.raises(UnsafeArchive, match="not safe to unpack"):
        unpack(made, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["x.zip"]


def _set_sizes(archive: Path, size: int) -> None:
    """Write ``size`` as the size of each entry into the directory of a ZIP."""
    content, at = bytearray(archive.read_bytes()), 0
    while (at := content.find(b"PK\1\2", at)) >= 0:
        content[at + 24 : at + 28] = size.to_bytes(4, "little")
        at += 46
    archive.write_bytes(content)


def test_archive_that_exceeds_the_free_space_is_not_unpacked(tmp_path: Path) -> None:
    made, size = tmp_path / "made.zip", 0xFFFFFFFE
    with zipfile.ZipFile(made, "w") as archive:
        for number in range(shutil.disk_usage(tmp_path).total // size + 1):
            archive.writestr(f"{number}", "x")
    _set_sizes(made, size)
    with pytest.raises(LocalStorageFailed, match=r"needs \d+\.\d GB, and \d+\.\d GB are free"):
        unpack(made, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["made.zip"]


@pytest.mark.parametrize("size", [10, 100_000_000])
def test_archive_with_wrong_sizes_in_its_directory_is_not_unpacked(
    tmp_path: Path, size: int
) -> None:
    made = tmp_path / "made.zip"
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(10_000_000))
    _set_sizes(made, size)
    with pytest.raises(LocalStorageFailed, match="is not a complete ZIP"):
        unpack(made, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["made.zip"]


def test_unpacking_replaces_only_an_empty_folder(tmp_path: Path) -> None:
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
        with pytest.raises(LocalStorageFailed, match="exists already"):
            unpack(made, tmp_path / taken)
    (tmp_path / "cut.zip").write_bytes(made.read_bytes()[:-30])
    with pytest.raises(LocalStorageFailed, match="not a complete ZIP"):
        unpack(tmp_path / "cut.zip", tmp_path / "new")
    assert not (tmp_path / "new").exists()
