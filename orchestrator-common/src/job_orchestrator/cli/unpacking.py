"""A ZIP of results as a folder: nothing of it lands outside, nothing that was there is lost."""

import secrets
import shutil
import stat
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from job_orchestrator.common.errors import BadRequest
from job_orchestrator.common.protocol.paths import RESERVED, check_path
from job_orchestrator.sdk import LocalStorageFailed

MADE_BY_UNIX = 3
BLOCK_BYTES = 1 << 20
LEAST_BYTES = 4096
"""What a file or folder takes of most disks, however little is in it."""


class UnsafeArchive(LocalStorageFailed):
    """A ZIP with a name in it that leads elsewhere. Nothing was unpacked."""


def check_folder(folder: Path) -> None:
    """Raise ``LocalStorageFailed`` unless ``folder`` is empty or not there yet."""
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists() or folder.is_symlink():
        raise LocalStorageFailed(
            f"{folder} is there already, and not empty: give another folder, or remove it"
        )


def check_file(file: Path) -> None:
    """Raise ``LocalStorageFailed`` if ``file`` is there."""
    if file.exists() or file.is_symlink():
        raise LocalStorageFailed(f"{file} is there already: give another name, or remove it")


def unpack(archive: Path, folder: Path) -> int:
    """Make ``folder`` the content of ``archive``, all at once; returns the number of files.

    Blocks: call it in a thread. Raises ``LocalStorageFailed``, ``UnsafeArchive``.
    """
    check_folder(folder)
    try:
        made = folder.with_name(f".{folder.name[:100]}.{secrets.token_hex(4)}.part")
        made.mkdir()
        try:
            count = _unpack_into(archive, made)
            # Over an empty folder, too, but over nothing else.
            made.rename(folder)
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise
    except zipfile.BadZipFile as error:
        raise LocalStorageFailed(f"{archive} is no whole ZIP: {error}") from error
    except OSError as error:
        raise LocalStorageFailed(f"{folder} can't be made: {error.strerror or error}") from error
    return count


def _unpack_into(archive: Path, folder: Path) -> int:
    """All into a new folder, in which no link waits."""
    count = 0
    with zipfile.ZipFile(archive) as entries:
        _check_room(entries.infolist(), folder)
        for entry in entries.infolist():
            path = folder / _checked(entry)
            if entry.is_dir():
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            with entries.open(entry) as source, path.open("xb") as target:
                _copy(source, target, entry)
            if entry.create_system == MADE_BY_UNIX and (entry.external_attr >> 16) & 0o100:
                mode = path.stat().st_mode
                path.chmod(mode | (mode & 0o444) >> 2)  # who may read it may run it
            count += 1
    return count


def _check_room(entries: Sequence[zipfile.ZipInfo], folder: Path) -> None:
    """Raise ``LocalStorageFailed`` unless there is room for all that the directory tells of.

    A few megabytes of ZIP may be as many terabytes of files: they are not begun.
    """
    needed = sum(max(entry.file_size, LEAST_BYTES) for entry in entries)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise LocalStorageFailed(
            f"The ZIP takes {needed / 1e9:.1f} GB when it is unpacked, and there is room for"
            f" {free / 1e9:.1f} GB: fetch it as a ZIP (-o NAME.zip)"
        )


def _copy(source: IO[bytes], target: IO[bytes], entry: zipfile.ZipInfo) -> None:
    """Unpack one file. Raises ``BadZipFile`` if it is not as large as the directory says."""
    left = entry.file_size
    while block := source.read(BLOCK_BYTES):
        left -= len(block)
        if left < 0:
            break
        target.write(block)
    if left:
        raise zipfile.BadZipFile(f"{entry.filename!r} is not as large as its directory says")


def _checked(entry: zipfile.ZipInfo) -> str:
    name = entry.orig_filename.removesuffix("/")
    kind = stat.S_IFMT(entry.external_attr >> 16) if entry.create_system == MADE_BY_UNIX else 0
    try:
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise BadRequest("it is no file")
        # What the system itself adds is the one thing that a user may not upload.
        check_path(name.removeprefix(f"{RESERVED}/"))
    except BadRequest as error:
        raise UnsafeArchive(
            f"The ZIP holds {name!r}, which is not safe to unpack: {error}"
        ) from error
    return name
