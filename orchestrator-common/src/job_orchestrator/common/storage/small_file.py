"""Reads small files whole: sending them from the disk would cost more than the sending itself."""

import os
from pathlib import Path
from typing import NamedTuple

from job_orchestrator.common.storage.regular_file import open_regular_file

MAX_BYTES = 1 << 16


class ReadFile(NamedTuple):
    """The content, and the time of the last change in nanoseconds since the epoch."""

    content: bytes
    modified_ns: int


def read_if_small(path: Path) -> ReadFile | None:
    """Read a file; return None if it is larger than ``MAX_BYTES``. Blocks: call it in a thread.

    Raises ``FileNotFoundError`` also for anything but a regular file, and ``OSError``.
    """
    descriptor = open_regular_file(path)
    try:
        status = os.fstat(descriptor)
        if status.st_size > MAX_BYTES:
            return None
        return ReadFile(os.read(descriptor, MAX_BYTES), status.st_mtime_ns)
    finally:
        os.close(descriptor)
