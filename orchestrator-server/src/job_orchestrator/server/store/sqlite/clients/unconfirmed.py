"""Messages that clients and web apps have not confirmed: kills, acknowledgements, callbacks.

The tables are nearly always empty. A trigger adds a callback when a job ends.
"""

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from job_orchestrator.server.store.base import DueCallback
from job_orchestrator.server.store.sqlite.connection import Connection
from job_orchestrator.server.store.sqlite.rows import columns_of, job_of
from job_orchestrator.server.store.sqlite.writer import Writer

ADD_ACKNOWLEDGEMENT = """
INSERT OR IGNORE INTO acknowledgements (client_url, payload_id, since) VALUES (?, ?, ?)
"""

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


MAX_DELAY_S = 0.05
"""Time that a removal may wait for another transaction. A row too many costs one request."""


@dataclass(frozen=True)
class SqliteAcknowledgements:
    """Implementation of ``Acknowledgements``. ``now`` returns seconds since the epoch."""

    writer: Writer
    reader: Connection
    now: Callable[[], float]

    async def of(self, client: str, within_s: float) -> set[int]:
        """See ``Acknowledgements.of``."""
        old = self.now() - within_s
        await self.writer.execute("DELETE FROM acknowledgements WHERE since < ?", (old,))
        rows = await self.reader.rows(
            "SELECT payload_id FROM acknowledgements WHERE client_url = ?", (client,)
        )
        return {int(payload_id) for (payload_id,) in rows}

    async def add(self, client: str, payload_id: int) -> None:
        """See ``Acknowledgements.add``."""
        await self.writer.execute(ADD_ACKNOWLEDGEMENT, (client, payload_id, self.now()))

    async def confirmed(self, client: str, payload_ids: Sequence[int]) -> None:
        """See ``Acknowledgements.confirmed``."""

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "DELETE FROM acknowledgements WHERE client_url = ? AND payload_id = ?",
                [(client, payload_id) for payload_id in payload_ids],
            )

        await self.writer.run(work, max_delay_s=MAX_DELAY_S)


DUE = f"""
SELECT {columns_of("jobs")}, callbacks.attempts
FROM callbacks CROSS JOIN jobs ON jobs.id = callbacks.job_id
WHERE callbacks.due_at <= ? ORDER BY callbacks.due_at LIMIT ?
"""  # noqa: S608


@dataclass(frozen=True)
class SqliteOutbox:
    """Implementation of ``Outbox``. ``now`` returns seconds since the epoch."""

    writer: Writer
    reader: Connection
    now: Callable[[], float]

    async def due(self, limit: int) -> Sequence[DueCallback]:
        """See ``Outbox.due``."""
        rows = await self.reader.rows(DUE, (self.now(), limit))
        return [DueCallback(job_of(row[:-1]), int(row[-1])) for row in rows]

    async def done(self, job_id: int) -> None:
        """See ``Outbox.done``."""
        await self.writer.execute("DELETE FROM callbacks WHERE job_id = ?", (job_id,))

    async def later(self, job_id: int, delay_s: float) -> None:
        """See ``Outbox.later``."""
        statement = "UPDATE callbacks SET attempts = attempts + 1, due_at = ? WHERE job_id = ?"
        await self.writer.execute(statement, (self.now() + delay_s, job_id))
