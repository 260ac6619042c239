"""Outbox of callbacks, in the table ``callbacks``. A trigger adds a row when a job ends."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from job_orchestrator.server.store.base import DueCallback
from job_orchestrator.server.store.sqlite.connection import Connection
from job_orchestrator.server.store.sqlite.rows import columns_of, job_of
from job_orchestrator.server.store.sqlite.writer import Writer

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
