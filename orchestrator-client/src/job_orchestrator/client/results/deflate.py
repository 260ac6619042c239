"""Compression with igzip (isal): several times faster than zlib at a similar ratio.

Data that would not get smaller, because it is compressed already, is stored.
"""

import contextlib
import os
import struct
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from isal import isal_zlib

BLOCK_BYTES = 1 << 20
ZEROS = bytes(BLOCK_BYTES)
"""A block of a hole. It is recognized by its identity and compressed once for all."""

LEVEL = 2
MAX_PENDING_BLOCKS = 4
"""Blocks of a file that are compressed concurrently; all of them are in memory."""

START_TIMEOUT_S = 10.0
SAMPLES, SAMPLE_BYTES = 4, 4096
WORTHWHILE_RATIO = 0.97
"""A sample has to shrink below this part of its size, or its data counts as incompressible."""

_RAW = -15
_STORED_BLOCK = struct.Struct("<BHH")
_MAX_STORED_BYTES = 0xFFFF


def deflate(content: bytes) -> bytes:
    """Compress a whole file. The result may be larger than the content."""
    return isal_zlib.compress(content, LEVEL, _RAW)


def is_incompressible(data: bytes) -> bool:
    """Estimate from samples whether compression of ``data`` would be of no use."""
    if len(data) < 2 * SAMPLES * SAMPLE_BYTES:
        return False
    step = len(data) // SAMPLES
    sample = b"".join(data[at : at + SAMPLE_BYTES] for at in range(0, SAMPLES * step, step))
    return len(deflate(sample)) > WORTHWHILE_RATIO * len(sample)


class ParallelDeflater:
    """Threads that compress the blocks of one large file; on a single CPU there are none.

    They serve one file at a time. Files that are packed concurrently have a thread each already,
    so memory is bounded however many there are.

    The threads are started in the constructor: scripts may use up the machine's limit of
    processes, which counts threads too, and their results must be packed nevertheless.
    """

    def __init__(self) -> None:
        threads = min(os.cpu_count() or 1, MAX_PENDING_BLOCKS)
        self._pool = ThreadPoolExecutor(threads, "deflater") if threads > 1 else None
        self._in_use = threading.Lock()
        if self._pool is not None:
            # The pool starts a thread only for work that no idle thread can take.
            all_started = threading.Barrier(threads)
            for _ in range(threads):
                self._pool.submit(all_started.wait, START_TIMEOUT_S)

    @contextlib.contextmanager
    def deflate_blocks(self, blocks: Iterator[bytes]) -> Iterator[Iterator[bytes]]:
        """Compress the blocks of a file to one deflate stream, which is given in parts.

        Each block is compressed independently. Blocks of a MiB get larger by about 0.1 % by it.
        """
        if self._pool is None or not self._in_use.acquire(blocking=False):
            yield _with_end(map(_deflate_block, blocks))
            return
        try:
            yield _with_end(_in_threads(self._pool, blocks))
        finally:
            self._in_use.release()


def _with_end(parts: Iterator[bytes]) -> Iterator[bytes]:
    yield from parts
    yield deflate(b"")


def _in_threads(pool: ThreadPoolExecutor, blocks: Iterator[bytes]) -> Iterator[bytes]:
    pending: deque[Future[bytes]] = deque()
    for block in blocks:
        pending.append(pool.submit(_deflate_block, block))
        if len(pending) > MAX_PENDING_BLOCKS:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def _deflate_block(data: bytes) -> bytes:
    """Compress a part of a stream that others follow: it ends at a byte boundary."""
    if data is ZEROS:
        return _ZEROS_DEFLATED
    return _store(data) if is_incompressible(data) else _compress(data)


def _compress(data: bytes) -> bytes:
    compressor = isal_zlib.compressobj(LEVEL, isal_zlib.DEFLATED, _RAW)
    return compressor.compress(data) + compressor.flush(isal_zlib.Z_FULL_FLUSH)


_ZEROS_DEFLATED = _compress(ZEROS)


def _store(data: bytes) -> bytes:
    """Make stored blocks (RFC 1951, section 3.2.4).

    Level 0 of zlib makes the same blocks in four times the time; level 0 of isal compresses.
    """
    parts: list[bytes] = []
    for at in range(0, len(data), _MAX_STORED_BYTES):
        part = data[at : at + _MAX_STORED_BYTES]
        parts += (_STORED_BLOCK.pack(0, len(part), len(part) ^ 0xFFFF), part)
    return b"".join(parts)
