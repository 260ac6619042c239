"""Floor for durable writes: the time of a small write with fsync."""

import os
import threading
import time
from pathlib import Path

BLOCK = b"x" * 4096


def fsync_ms(folder: Path) -> float:
    """Return the milliseconds to append and flush one page, the cheapest durable write."""
    descriptor = _open(folder / "flushed")
    try:
        begun = time.perf_counter()
        os.write(descriptor, BLOCK)
        os.fsync(descriptor)
        return (time.perf_counter() - begun) * 1000
    finally:
        os.close(descriptor)


def fsyncs_per_second(folder: Path, count: int, parallel: int) -> float:
    """Return the rate of ``count`` such writes by ``parallel`` threads, one file per thread."""

    def write(number: int) -> None:
        descriptor = _open(folder / f"flushed-{number}")
        try:
            for _ in range(count // parallel):
                os.write(descriptor, BLOCK)
                os.fsync(descriptor)
        finally:
            os.close(descriptor)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(parallel)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return count // parallel * parallel / (time.perf_counter() - begun)


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
