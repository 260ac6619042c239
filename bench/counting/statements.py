"""Counts the SQL statements of a service.

Run as a program it is the service, with a trace on each of its databases:
``python statements.py FILE COMMAND``. The first word of every statement goes to FILE.
"""

import runpy
import sqlite3
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any


def wrapper(file: Path) -> list[str]:
    """The command to start a service with."""
    return [sys.executable, __file__, str(file)]


def count(file: Path) -> Counter[str]:
    """Statements so far, by their first word; those of triggers are not among them."""
    return Counter(file.read_text().splitlines())


def run(file: Path, command: str) -> None:
    """Be the service."""
    out = file.open("a", buffering=1)

    class Traced(sqlite3.Connection):
        """A connection that notes what it is given to do."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._last = ""
            self.set_trace_callback(self._note)

        def _note(self, statement: str) -> None:
            # A trigger shows as the statement that fired it once more, values and all.
            if statement != self._last:
                out.write(f"{statement.split(None, 1)[0]}\n")
            self._last = statement

    sqlite3.connect = partial(sqlite3.connect, factory=Traced)  # type: ignore[assignment]
    sys.argv = [command]
    runpy.run_path(command, run_name="__main__")


if __name__ == "__main__":
    run(Path(sys.argv[1]), sys.argv[2])
