"""What the C library (glibc) does with memory that is free; others are left as they are."""

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager

# mallopt(3)
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
KEPT_BYTES = 16 << 20
LARGEST_BUFFER_BYTES = 4 << 20
USUAL_THRESHOLD_BYTES = 128 << 10


def retain_freed_buffers() -> None:
    """Use the memory of buffers again and again.

    Else it goes back to the system with each of them and comes again with the next, page by page:
    a quarter of a million page faults for each GB that arrives. At most ``KEPT_BYTES`` are kept.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, LARGEST_BUFFER_BYTES)
        mallopt(_TRIM_THRESHOLD, KEPT_BYTES)


@contextmanager
def release_memory_afterwards() -> Iterator[None]:
    """For work that needs much memory once: all of it goes back to the system. Blocks.

    Afterwards buffers are kept as ``retain_freed_buffers`` has it.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, USUAL_THRESHOLD_BYTES)
    try:
        yield
    finally:
        retain_freed_buffers()
        release_free_memory()


def release_free_memory() -> None:
    """Return to the system what is free, after something large. Blocks."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
