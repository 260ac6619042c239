"""Tuning of the memory allocator of glibc. Other C libraries are left as they are."""

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager

# mallopt(3)
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
KEPT_BYTES = 16 << 20
LARGEST_BUFFER_BYTES = 4 << 20
DEFAULT_THRESHOLD_BYTES = 128 << 10


def retain_freed_buffers() -> None:
    """Reuse the memory of freed buffers, at most ``KEPT_BYTES``.

    By default glibc returns the memory of each large buffer to the system, and the next buffer gets
    it again page by page: a quarter of a million page faults for each GB that is received.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, LARGEST_BUFFER_BYTES)
        mallopt(_TRIM_THRESHOLD, KEPT_BYTES)


@contextmanager
def release_memory_afterwards() -> Iterator[None]:
    """Return all memory to the system that the work in the block needed. Blocks.

    Afterwards freed buffers are retained as after ``retain_freed_buffers``.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, DEFAULT_THRESHOLD_BYTES)
    try:
        yield
    finally:
        retain_freed_buffers()
        release_free_memory()


def release_free_memory() -> None:
    """Return free memory to the system, after work that needed much. Blocks."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
