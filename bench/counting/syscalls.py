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
    """Whether there is a strace."""
    return shutil.which("strace") is not None


def wrapper(file: Path) -> list[str]:
    """The command to start a service with; its calls go to ``file``, as they are made.

    Threads too (-f), with the paths of files (-y), and as nobody's parent (-D): the process that is
    started is the service itself.
    """
    return ["strace", "-D", "-f", "-y", "-q", "-s", "0", "-o", str(file)]


class Trace:
    """What was traced between two moments."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._from = file.stat().st_size

    def flushes(self, data: Path) -> Counter[str]:
        """What was flushed to the disk, by its path below ``data``; ids are left out."""
        return Counter(_generic(path, data) for _, path in _FLUSH.findall(self._read()))

    def calls(self, threads: Set[int]) -> Counter[str]:
        """System calls of these threads: what the scripts do is not the service's."""
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
