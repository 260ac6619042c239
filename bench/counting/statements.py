"""Counts the SQL statements of a service.

Run as a program it is the service, with a trace on each of its databases:
``python statements.py FILE COMMAND``. The first word of every statement goes to FILE.
"""

import runpy
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO


def wrapper(file: Path) -> list[str]:
    """The command to start a service with."""
    return [sys.executable, __file__, str(file)]


def count(file: Path) -> Counter[str]:
    """Statements so far, by their first word; those of triggers are not among them."""
    return Counter(file.read_text().splitlines())


def run(file: Path, command: str) -> None:
    """Be the service."""
    out = file.open("a", buffering=1)
    plain_connect: Callable[..., sqlite3.Connection] = sqlite3.connect

    def connect(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        connection = plain_connect(*args, **kwargs)
        connection.set_trace_callback(_Recorder(out).record)
        return connection

    sqlite3.connect = connect  # type: ignore[assignment]
    sys.argv = [command]
    runpy.run_path(command, run_name="__main__")


class _Recorder:
    """Notes what one connection is given to do."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._last = ""

    def record(self, statement: str) -> None:
        """A statement begins."""
        # A trigger shows as the statement that fired it once more, values and all.
        if statement != self._last:
            self._out.write(f"{statement.split(None, 1)[0]}\n")
        self._last = statement


if __name__ == "__main__":
    run(Path(sys.argv[1]), sys.argv[2])
