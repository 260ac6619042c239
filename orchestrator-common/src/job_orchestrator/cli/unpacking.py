"""Unpack a ZIP of results into a folder. Nothing is written outside it, nothing overwritten."""

import secrets
import shutil
import stat
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from job_orchestrator.common.protocol.paths import RESERVED, UnsafePath, check_path
from job_orchestrator.sdk import LocalStorageFailed

MADE_BY_UNIX = 3
BLOCK_BYTES = 1 << 20
MIN_ENTRY_BYTES = 4096
"""Space that a file or folder takes on most disks, even if it is empty."""


class UnsafeArchive(LocalStorageFailed):
    """A name in the ZIP leads out of the folder. Nothing was unpacked."""


def check_folder(folder: Path) -> None:
    """Raise ``LocalStorageFailed`` unless ``folder`` is empty or does not exist."""
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists() or folder.is_symlink():
        raise LocalStorageFailed(
            f"{folder} exists already and is not empty: give another folder, or remove it"
        )


def refuse_existing_file(file: Path) -> None:
    """Raise ``LocalStorageFailed`` if ``file`` exists."""
    if file.exists() or file.is_symlink():
        raise LocalStorageFailed(f"{file} exists already: give another name, or remove it")


def unpack(archive: Path, folder: Path) -> int:
    """Unpack ``archive`` into ``folder``, all of it or nothing. Returns the number of files.

    Blocks: call it in a thread. Raises ``LocalStorageFailed``, ``UnsafeArchive``.
    """
    check_folder(folder)
    try:
        unpacked = folder.with_name(f".{folder.name[:100]}.{secrets.token_hex(4)}.part")
        unpacked.mkdir()
        try:
            count = _unpack_into(archive, unpacked)
            # Replaces an empty folder, but nothing else.
            unpacked.rename(folder)
        except BaseException:
            shutil.rmtree(unpacked, ignore_errors=True)
            raise
    except zipfile.BadZipFile as error:
        raise LocalStorageFailed(f"{archive} is not a complete ZIP: {error}") from error
    except OSError as error:
        raise LocalStorageFailed(f"{folder} can't be created: {error.strerror or error}") from error
    return count


def _unpack_into(archive: Path, folder: Path) -> int:
    """Unpack all entries. ``folder`` is new, so that it contains no links to follow."""
    count = 0
    with zipfile.ZipFile(archive) as entries:
        _check_space(entries.infolist(), folder)
        for entry in entries.infolist():
            path = folder / _safe_name(entry)
            if entry.is_dir():
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            with entries.open(entry) as source, path.open("xb") as target:
                _copy(source, target, entry)
            if entry.create_system == MADE_BY_UNIX and (entry.external_attr >> 16) & 0o100:
                mode = path.stat().st_mode
                # Executable for everybody who may read the file.
                path.chmod(mode | (mode & 0o444) >> 2)
            count += 1
    return count


def _check_space(entries: Sequence[zipfile.ZipInfo], folder: Path) -> None:
    """Raise ``LocalStorageFailed`` unless the disk has space for all entries of the directory.

    A ZIP of a few megabytes may expand to terabytes.
    """
    needed = sum(max(entry.file_size, MIN_ENTRY_BYTES) for entry in entries)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise LocalStorageFailed(
            f"The unpacked ZIP needs {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free:"
            " download it as a ZIP (-o NAME.zip)"
        )


def _copy(source: IO[bytes], target: IO[bytes], entry: zipfile.ZipInfo) -> None:
    """Unpack one file. Raises ``BadZipFile`` if its size differs from that in the directory."""
    left = entry.file_size
    while block := source.read(BLOCK_BYTES):
        left -= len(block)
        if left < 0:
            break
        target.write(block)
    if left:
        raise zipfile.BadZipFile(
            f"the size of {entry.filename!r} differs from that in the directory"
        )


def _safe_name(entry: zipfile.ZipInfo) -> str:
    """Return the name of an entry if it is a file or folder inside the target.

    Raises ``UnsafeArchive``.
    """
    name = entry.orig_filename.removesuffix("/")
    kind = stat.S_IFMT(entry.external_attr >> 16) if entry.create_system == MADE_BY_UNIX else 0
    try:
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise UnsafePath("it is not a regular file")
        # Users may not upload into the reserved folder; the system itself adds files there.
        check_path(name.removeprefix(f"{RESERVED}/"))
    except UnsafePath as error:
        raise UnsafeArchive(
            f"The ZIP contains {name!r}, which is not safe to unpack: {error}"
        ) from error
    return name
