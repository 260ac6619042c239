"""Counts the system calls of a service with strace."""

import os
import re
import shutil
from collections import Counter
from collections.abc import Set
from pathlib import Path

_FLUSH = re.compile(r"(fsync|fdatasync|syncfs|sync_file_range)\(\d+<([^>]*)>")
_CALL = re.compile(r"^(\d+) +(\w+)\(", re.MULTILINE)
_UUID = re.compile(r"^[0-9a-f]{8}-[0-9a-f-]{27}$")


def available() -> bool:
    """Check whether strace is installed."""
    return shutil.which("strace") is not None


def wrapper(file: Path) -> list[str]:
    """Return a command prefix that writes the system calls of a service to ``file``.

    Threads are included (-f), with the paths of files (-y). With -D strace is not the parent, so
    that the started process is the service itself.
    """
    return ["strace", "-D", "-f", "-y", "-q", "-s", "0", "-o", str(file)]


class Trace:
    """Part of a trace file from the creation of this object on."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._from = file.stat().st_size

    def flushes(self, data: Path) -> Counter[str]:
        """Count the flushes to disk by path relative to ``data``, with UUIDs replaced."""
        return Counter(_generic(path, data) for _, path in _FLUSH.findall(self._read()))

    def calls(self, threads: Set[int]) -> Counter[str]:
        """Count the system calls of these threads, which excludes those of scripts."""
        return Counter(
            name for thread, name in _CALL.findall(self._read()) if int(thread) in threads
        )

    def _read(self) -> str:
        with self._file.open() as file:
            file.seek(self._from)
            return file.read()


def _generic(path: str, data: Path) -> str:
    parts = os.path.relpath(path, data).split("/")
    return "/".join("JOB" if _UUID.match(part) else part for part in parts)
