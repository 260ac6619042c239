"""Opening of files in folders where programs of others may put anything under their names.

A FIFO, device, link or folder in place of a file neither blocks nor diverts the caller. All
functions block, for the disk only: call them in a thread.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

_NO_REGULAR_FILE = (errno.ELOOP, errno.ENXIO)
"""Errors of open(2) with O_NOFOLLOW and O_NONBLOCK for a link, and for a socket or device."""


def open_regular_file(path: Path, flags: int = os.O_RDONLY) -> int:
    """Open an existing regular file; return its descriptor.

    Raises ``FileNotFoundError`` also for anything else that has the name, and ``OSError``.
    """
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _NO_REGULAR_FILE:
            raise _missing(path) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _missing(path)
    return descriptor


@contextmanager
def opened_folder(path: Path) -> Iterator[int]:
    """Open a folder within the block, as a descriptor that does not follow a later move.

    Raises ``NotADirectoryError`` for a link, and ``OSError``.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def create_file(name: str, folder: int, flags: int = os.O_WRONLY, mode: int = 0o600) -> int:
    """Create a file in an open folder, in place of anything that has its name.

    Raises ``OSError``.
    """
    make_way(name, folder)
    flags |= os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(name, flags, mode, dir_fd=folder)


def rename_file(old: str, new: str, folder: int) -> None:
    """Rename a file within an open folder, in place of anything that has the name ``new``.

    Raises ``OSError``.
    """
    try:
        os.rename(old, new, src_dir_fd=folder, dst_dir_fd=folder)
    except IsADirectoryError:
        make_way(new, folder)
        os.rename(old, new, src_dir_fd=folder, dst_dir_fd=folder)


def make_way(name: str, folder: int) -> None:
    """Remove what has a name; a folder gets another name, under which it is removed later."""
    with contextlib.suppress(FileNotFoundError):
        try:
            os.unlink(name, dir_fd=folder)
        except (IsADirectoryError, PermissionError):  # POSIX has the second one for folders
            aside = f".{name}.{uuid4().hex}"
            os.rename(name, aside, src_dir_fd=folder, dst_dir_fd=folder)


def _missing(path: Path) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, "No regular file has this name", str(path))
