"""Writing files so that a power cut leaves either the old state or the new one.

All functions block: call them in a thread.
"""

import contextlib
import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from job_orchestrator.common.errors import StorageFull
from job_orchestrator.common.runtime.fault_injection import Point, reach

BEHIND_BYTES = 8 << 20

_BEGIN = 2
"""SYNC_FILE_RANGE_WRITE of sync_file_range(2), which only Linux has."""

_sync_file_range = getattr(ctypes.CDLL(None), "sync_file_range", None)
if _sync_file_range is not None:
    _sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)

_FULL = (errno.ENOSPC, errno.EDQUOT)


def fsync_path(path: Path | str) -> None:
    """Flush a file's content, or a folder's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        reach(Point.DISK_FLUSH)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_tree(top: Path) -> None:
    """Flush ``top`` and everything below it: files first, then the folders that name them."""
    folders: list[str] = [str(top)]
    files: list[str] = []
    for folder in folders:
        with os.scandir(folder) as entries:
            for entry in entries:
                (folders if entry.is_dir(follow_symlinks=False) else files).append(entry.path)
    if len(files) > 1:
        # Let the disk begin with all of them, else each flush would wait for a write of its own.
        for file in files:
            descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
            try:
                start_writeback(descriptor)
            finally:
                os.close(descriptor)
    for path in (*files, *reversed(folders)):
        fsync_path(path)


def start_writeback(descriptor: int, offset: int = 0, size: int = 0) -> None:
    """Let the disk begin with ``size`` bytes of a file, 0: with all behind ``offset``.

    It waits for nothing, and what goes wrong the flush tells. ``posix_fadvise`` would begin, too,
    but then drop from memory what is soon read again.
    """
    if _sync_file_range is not None:
        _sync_file_range(descriptor, offset, size, _BEGIN)


class WriteBehind:
    """Lets the disk begin with a large file while more of it arrives.

    Else all of it would wait in memory for the flush at the end. For a file that is written from
    its beginning on.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._written = 0
        self._begun = 0

    def wrote(self, size: int) -> None:
        """So many bytes more are written."""
        self._written += size
        if self._written - self._begun >= BEHIND_BYTES:
            start_writeback(self._descriptor, self._begun, self._written - self._begun)
            self._begun = self._written


def replace_durably(temporary: Path, final: Path) -> None:
    """Rename the complete and flushed ``temporary`` to ``final`` in the same folder, durably."""
    temporary.replace(final)
    fsync_path(final.parent)


def write_durably(path: Path, content: bytes, *, mode: int = 0o666) -> None:
    """Make ``path`` hold exactly ``content``: temporary name, flush, rename, flush.

    ``mode`` are its permissions, less what the umask takes, from the moment it exists.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with os.fdopen(os.open(temporary, flags, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    replace_durably(temporary, path)


def touch_private(path: Path) -> None:
    """Make an empty file that is its owner's alone, unless something is there. Raises ``OSError``.

    What writes it afterwards leaves its permissions as they are. A file that is there is not even
    opened: to close it would give up the locks that SQLite holds on it in this process.
    """
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


@contextmanager
def full_disk_as_domain_error() -> Iterator[None]:
    """Turn "no space left" of the operating system into ``StorageFull``."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFull(
                "The disk is full. Nothing was kept; try again later or tell the administrator."
            ) from error
        raise
