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
    """Return the command that starts a service with its statements traced."""
    return [sys.executable, __file__, str(file)]


def count(file: Path) -> Counter[str]:
    """Count the statements so far by their first word, without those of triggers."""
    return Counter(file.read_text().splitlines())


def run(file: Path, command: str) -> None:
    """Run as the service."""
    out = file.open("a", buffering=1)
    plain_connect: Callable[..., sqlite3.Connection] = sqlite3.connect

    def connect(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        connection = plain_connect(*args, **kwargs)
        connection.set_trace_callback(_Notes(out).note)
        return connection

    sqlite3.connect = connect  # type: ignore[assignment]
    sys.argv = [command]
    runpy.run_path(command, run_name="__main__")


class _Notes:
    """Records the statements of one connection."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._last = ""

    def note(self, statement: str) -> None:
        """Record the start of a statement."""
        # For a trigger SQLite reports the statement that fired it again, with its values.
        if statement != self._last:
            self._out.write(f"{statement.split(None, 1)[0]}\n")
        self._last = statement


if __name__ == "__main__":
    run(Path(sys.argv[1]), sys.argv[2])
