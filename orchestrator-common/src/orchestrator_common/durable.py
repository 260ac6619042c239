"""Writing files so that a power cut leaves either the old state or the new one.

All functions block: call them in a thread.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator_common.errors import StorageFull

_FULL = (errno.ENOSPC, errno.EDQUOT)


def fsync_path(path: Path) -> None:
    """Flush a file's content, or a folder's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_tree(top: Path) -> None:
    """Flush ``top`` and everything below it: files first, then the folders that name them."""
    for folder, _, names in os.walk(top, topdown=False):
        for name in names:
            fsync_path(Path(folder, name))
        fsync_path(Path(folder))


def replace_durably(temporary: Path, final: Path) -> None:
    """Rename the complete and flushed ``temporary`` (file or folder) to ``final``, durably."""
    temporary.replace(final)
    fsync_path(final.parent)
    if temporary.parent != final.parent:
        fsync_path(temporary.parent)


def write_durably(path: Path, content: bytes) -> None:
    """Make ``path`` hold exactly ``content``: temporary name, flush, rename, flush."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    replace_durably(temporary, path)


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
