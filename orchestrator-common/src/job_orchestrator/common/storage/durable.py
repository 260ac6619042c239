"""Durable writing: after a power cut a file has either its old content or its new one.

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

WRITEBACK_BYTES = 8 << 20
"""Bytes after which a file that is being written is handed to the disk."""

_SYNC_FILE_RANGE_WRITE = 2
"""Of sync_file_range(2), which only Linux has."""

_sync_file_range = getattr(ctypes.CDLL(None), "sync_file_range", None)
if _sync_file_range is not None:
    _sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)

_syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
"""syncfs(2), which only Linux has."""

_FULL_DISK = (errno.ENOSPC, errno.EDQUOT)


def fsync_path(path: Path | str) -> None:
    """Flush a file's content, or a folder's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        reach(Point.DISK_FLUSH)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file_system(path: Path) -> None:
    """Flush everything that was written to the file system of ``path``. Raises ``OSError``.

    That is faster than ``fsync_tree`` for thousands of folders.
    """
    if _syncfs is None:
        os.sync()
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        reach(Point.DISK_FLUSH)
        if _syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(path))
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
        # Start the writing of all files first, else each flush would wait for a separate write.
        for file in files:
            descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
            try:
                start_writeback(descriptor)
            finally:
                os.close(descriptor)
    for path in (*files, *reversed(folders)):
        fsync_path(path)


def start_writeback(descriptor: int, offset: int = 0, size: int = 0) -> None:
    """Start writing ``size`` bytes of a file to the disk; 0: all bytes from ``offset`` on.

    Does not wait; a later flush reports errors. ``posix_fadvise`` would start the writing, too, but
    then drop pages from memory that are read again soon.
    """
    if _sync_file_range is not None:
        _sync_file_range(descriptor, offset, size, _SYNC_FILE_RANGE_WRITE)


class WriteBehind:
    """Writes a large file to the disk while more of it arrives.

    Otherwise all of it would be in memory at the final flush. The file must be written
    sequentially, from its beginning.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._written = 0
        self._handed_over = 0

    def wrote(self, size: int) -> None:
        """Report that ``size`` more bytes were written."""
        self._written += size
        if self._written - self._handed_over >= WRITEBACK_BYTES:
            start_writeback(self._descriptor, self._handed_over, self._written - self._handed_over)
            self._handed_over = self._written


def replace_durably(temporary: Path, final: Path) -> None:
    """Rename the complete and flushed ``temporary`` to ``final`` in the same folder, durably."""
    temporary.replace(final)
    fsync_path(final.parent)


def write_durably(path: Path, content: bytes, *, mode: int = 0o666) -> None:
    """Replace the content of ``path``: write under a temporary name, flush, rename, flush.

    ``mode`` are the permissions of the file from its creation on, reduced by the umask.
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
    """Create an empty file that only its owner can read, unless it exists. Raises ``OSError``.

    Later writes keep its permissions. An existing file is not opened: closing it would release the
    locks that SQLite holds on it in this process (fcntl(2)).
    """
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


@contextmanager
def full_disk_as_domain_error() -> Iterator[None]:
    """Turn "no space left" of the operating system into ``StorageFull``."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL_DISK:
            raise StorageFull(
                "The disk is full. Nothing was kept; try again later or tell the administrator."
            ) from error
        raise
