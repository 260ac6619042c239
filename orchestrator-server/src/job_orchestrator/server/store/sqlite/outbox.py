"""Ends of jobs that are still to be told to their callback URLs.

A trigger adds one in the transaction that ends the job: no end is forgotten, and none is told that
did not happen. It stays until it was told, or given up.
"""

import sqlite3
from collections.abc import Callable, Sequence

from job_orchestrator.server.store.base import DueCallback
from job_orchestrator.server.store.sqlite.schema import COLUMNS, job_of
from job_orchestrator.server.store.sqlite.writer import Connection, Writer

DUE = f"""
SELECT {", ".join(f"jobs.{name.strip()}" for name in COLUMNS.split(","))}, callbacks.attempts
FROM callbacks CROSS JOIN jobs ON jobs.id = callbacks.job_id
WHERE callbacks.due_at <= ? ORDER BY callbacks.due_at LIMIT ?
"""  # noqa: S608


class Outbox:
    """The callbacks. ``now`` gives seconds since the epoch."""

    def __init__(self, writer: Writer, reader: Connection, now: Callable[[], float]) -> None:
        self._writer = writer
        self._reader = reader
        self._now = now

    async def due(self, limit: int) -> Sequence[DueCallback]:
        """What is to be told now, the longest due first."""
        rows = await self._reader.execute_fetchall(DUE, (self._now(), limit))
        return [DueCallback(job_of(row[:-1]), int(row[-1])) for row in rows]

    async def done(self, job_id: int) -> None:
        """It was told, or is given up."""
        await self._write("DELETE FROM callbacks WHERE job_id = ?", (job_id,))

    async def later(self, job_id: int, delay_s: float) -> None:
        """It failed, and is to be tried again."""
        statement = "UPDATE callbacks SET attempts = attempts + 1, due_at = ? WHERE job_id = ?"
        await self._write(statement, (self._now() + delay_s, job_id))

    async def _write(self, statement: str, values: Sequence[object]) -> None:
        def work(connection: sqlite3.Connection) -> None:
            connection.execute(statement, values)

        await self._writer.run(work, told=lambda _: None)
