"""Reads small files whole: sending them from the disk would cost more than the sending itself."""

import os
from pathlib import Path
from typing import NamedTuple

MAX_BYTES = 1 << 16


class ReadFile(NamedTuple):
    """The content, and the time of the last change in nanoseconds since the epoch."""

    content: bytes
    modified_ns: int


def read_if_small(path: Path) -> ReadFile | None:
    """Read a file; return None if it is larger than ``MAX_BYTES``. Blocks: call it in a thread.

    Raises ``OSError``.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if status.st_size > MAX_BYTES:
            return None
        return ReadFile(os.read(descriptor, MAX_BYTES), status.st_mtime_ns)
    finally:
        os.close(descriptor)
