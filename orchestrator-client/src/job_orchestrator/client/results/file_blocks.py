"""The content of a file in blocks, without reading its holes."""

import errno
import os
from collections.abc import Iterator

from job_orchestrator.client.results.deflate import BLOCK_BYTES, ZEROS

_STATUS_BLOCK_BYTES = 512


def blocks_of(descriptor: int, size: int) -> Iterator[bytes]:
    """At most ``size`` bytes of a file, which may be shorter. Whole blocks of holes are ``ZEROS``.

    Raises ``OSError``.
    """
    sparse = os.fstat(descriptor).st_blocks * _STATUS_BLOCK_BYTES < size
    at = data = 0
    while at < size:
        if sparse and data <= at:
            data = _next_data(descriptor, at)
        if min(data, size) - at >= BLOCK_BYTES:
            block = ZEROS
        else:
            block = os.pread(descriptor, min(BLOCK_BYTES, size - at), at)
            if not block:
                return
        yield block
        at += len(block)


def _next_data(descriptor: int, at: int) -> int:
    """Where the hole ends that ``at`` lies in; ``at`` itself where there is none, or none told."""
    try:
        return os.lseek(descriptor, at, os.SEEK_DATA)
    except OSError as error:
        return os.fstat(descriptor).st_size if error.errno == errno.ENXIO else at
