"""Keys of attempts that were given up while their client was away: it may still have them.

One is added in the transaction that gives the attempt up, and stays until the client has ended it.
"""

import sqlite3
from collections.abc import Callable, Sequence

from job_orchestrator.server.store.sqlite.writer import Connection, Writer

ADD_ABANDONED = "INSERT OR IGNORE INTO strays (client_url, key, since) VALUES (?, ?, ?)"


class AbandonedKeys:
    """Those of all clients. ``now`` gives seconds since the epoch."""

    def __init__(self, writer: Writer, reader: Connection, now: Callable[[], float]) -> None:
        self._writer = writer
        self._reader = reader
        self._now = now

    async def of(self, client_url: str, within_s: float) -> set[str]:
        """Those of a client; those of anybody that are older than ``within_s`` are forgotten."""
        await self._write("DELETE FROM strays WHERE since < ?", (self._now() - within_s,))
        rows = await self._reader.execute_fetchall(
            "SELECT key FROM strays WHERE client_url = ?", (client_url,)
        )
        return {str(key) for (key,) in rows}

    async def forget(self, client_url: str, key: str) -> None:
        """Note that a client does not have an attempt any more."""
        await self._write("DELETE FROM strays WHERE client_url = ? AND key = ?", (client_url, key))

    async def _write(self, statement: str, values: Sequence[object]) -> None:
        def work(connection: sqlite3.Connection) -> None:
            connection.execute(statement, values)

        await self._writer.run(work, told=lambda _: None)
