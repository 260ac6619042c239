"""Counts system calls of a service, with strace."""

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
    """Return whether strace is installed."""
    return shutil.which("strace") is not None


def wrapper(file: Path) -> list[str]:
    """Return the command that starts a service with its system calls written to ``file``.

    It traces threads too (-f) and paths of files (-y). With -D the started process is the service
    itself, and strace its child.
    """
    return ["strace", "-D", "-f", "-y", "-q", "-s", "0", "-o", str(file)]


class Trace:
    """The system calls between two moments."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._from = file.stat().st_size

    def flushes(self, data: Path) -> Counter[str]:
        """Count the flushes by path below ``data``, without ids."""
        return Counter(_generic(path, data) for _, path in _FLUSH.findall(self._read()))

    def calls(self, threads: Set[int]) -> Counter[str]:
        """Count the system calls of these threads, without those of the scripts."""
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
