"""Counts the SQL statements of a service.

As a program, ``python statements.py FILE COMMAND``, it runs a service with a trace callback on each
of its database connections, and writes the first word of every statement to FILE.
"""

import runpy
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO


def wrapper(file: Path) -> list[str]:
    """Return a command prefix that writes the statements of a service to ``file``."""
    return [sys.executable, __file__, str(file)]


def count(file: Path) -> Counter[str]:
    """Count the statements by their first word, without those of triggers."""
    return Counter(file.read_text().splitlines())


def run(file: Path, command: str) -> None:
    """Run the service in this process, with the trace callback."""
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
    """Trace callback of one connection."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._last = ""

    def record(self, statement: str) -> None:
        """Record the first word of a statement that begins."""
        # SQLite reports a trigger as a repetition of the statement that fired it.
        if statement != self._last:
            self._out.write(f"{statement.split(None, 1)[0]}\n")
        self._last = statement


if __name__ == "__main__":
    run(Path(sys.argv[1]), sys.argv[2])
