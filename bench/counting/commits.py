"""Counts the commits of a SQLite database that another process writes, without touching it.

In WAL mode the first bytes of the shared-memory file are the WAL-index header, whose third word is
incremented with every transaction that wrote something (https://www.sqlite.org/walformat.html,
section 2.1: ``iChange``). The header is stored twice; both copies differ during a change.
"""

import struct
import time
from pathlib import Path

_HEADER_BYTES = 48
_CHANGES = struct.Struct("=8xI")


def commits(database: Path) -> int:
    """Return a counter of committed transactions. Only differences are meaningful."""
    for _ in range(100):
        with database.with_name(f"{database.name}-shm").open("rb") as file:
            both = file.read(2 * _HEADER_BYTES)
        (first,) = _CHANGES.unpack_from(both)
        (second,) = _CHANGES.unpack_from(both, _HEADER_BYTES)
        if first == second:
            return int(first)
        time.sleep(0.001)
    raise RuntimeError(f"{database} changes too often to be read")
