"""Reading a small file whole: for those, sending from the disk costs more than sending itself."""

import os
from pathlib import Path
from typing import NamedTuple

MAX_BYTES = 1 << 16


class SmallFile(NamedTuple):
    """Content, and the time of the last change in nanoseconds since the epoch."""

    content: bytes
    modified_ns: int


def read_if_small(path: Path) -> SmallFile | None:
    """The file, or None if it is larger than ``MAX_BYTES``. Blocks: call it in a thread.

    Raises ``OSError``.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if status.st_size > MAX_BYTES:
            return None
        return SmallFile(os.read(descriptor, MAX_BYTES), status.st_mtime_ns)
    finally:
        os.close(descriptor)
