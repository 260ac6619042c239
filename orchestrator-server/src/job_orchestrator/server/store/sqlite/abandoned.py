"""Keys of abandoned attempts. The table is nearly always empty."""

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass

from job_orchestrator.server.store.sqlite.acknowledgements import ADD_ACKNOWLEDGEMENT
from job_orchestrator.server.store.sqlite.connection import Connection
from job_orchestrator.server.store.sqlite.writer import Writer

ADD_ABANDONED = "INSERT OR IGNORE INTO strays (client_url, key, since) VALUES (?, ?, ?)"


@dataclass(frozen=True)
class SqliteAbandonedKeys:
    """Implementation of ``AbandonedKeys``. ``now`` returns seconds since the epoch."""

    writer: Writer
    reader: Connection
    now: Callable[[], float]

    async def of(self, client: str, within_s: float) -> set[str]:
        """See ``AbandonedKeys.of``."""
        await self.writer.execute("DELETE FROM strays WHERE since < ?", (self.now() - within_s,))
        rows = await self.reader.rows("SELECT key FROM strays WHERE client_url = ?", (client,))
        return {str(key) for (key,) in rows}

    async def forget(self, client: str, key: str, *, acknowledge: int | None = None) -> None:
        """See ``AbandonedKeys.forget``."""
        now = self.now()

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM strays WHERE client_url = ? AND key = ?", (client, key))
            if acknowledge is not None:
                connection.execute(ADD_ACKNOWLEDGEMENT, (client, acknowledge, now))

        await self.writer.run(work)
