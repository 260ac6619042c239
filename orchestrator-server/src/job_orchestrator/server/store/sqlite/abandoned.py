"""Keys of abandoned attempts. The table is nearly always empty."""

from collections.abc import Callable
from dataclasses import dataclass

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

    async def forget(self, client: str, key: str) -> None:
        """See ``AbandonedKeys.forget``."""
        statement = "DELETE FROM strays WHERE client_url = ? AND key = ?"
        await self.writer.execute(statement, (client, key))
