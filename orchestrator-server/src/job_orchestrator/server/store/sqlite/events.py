"""Event log, in the table ``job_events``. Triggers write it, so that no change can be forgotten."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from job_orchestrator.common.status import JobStatus
from job_orchestrator.server.errors import JobNotFound
from job_orchestrator.server.model import Job
from job_orchestrator.server.store.base import MAX_EVENTS, JobEvent
from job_orchestrator.server.store.sqlite.connection import Connection
from job_orchestrator.server.store.sqlite.rows import COLUMNS, columns_of, job_of

LAST_ID = "SELECT coalesce(max(id), 0) FROM job_events"
BETWEEN = f"""
SELECT event.id, event.at, event.to_status, event.why, {columns_of("jobs")}
FROM job_events AS event CROSS JOIN jobs ON jobs.id = event.job_id
WHERE event.id > :after AND event.id <= :until ORDER BY event.id LIMIT :limit
"""  # noqa: S608
OF_JOB = f"""
SELECT event.id, event.at, event.to_status, event.why, {columns_of("jobs")}
FROM job_events AS event CROSS JOIN jobs ON jobs.id = event.job_id
WHERE event.job_id = :job_id AND event.id > :after AND event.id <= :until ORDER BY event.id
LIMIT :limit
"""  # noqa: S608
PRESENT = f"""
SELECT (SELECT max(id) FROM job_events WHERE job_id = jobs.id), {COLUMNS} FROM jobs WHERE id = ?
"""  # noqa: S608

NUMBERS_SKIPPED = 1_000_000
"""Numbers that are skipped at a start: more than there are events that a power cut can undo."""


def skip_numbers(connection: sqlite3.Connection) -> None:
    """Skip the numbers of events that a power cut may have undone after readers received them.

    The change must be durable before the first event: otherwise another power cut undoes both.
    """
    connection.execute(
        """INSERT INTO sqlite_sequence (name, seq) SELECT 'job_events', 0
        WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'job_events')"""
    )
    connection.execute(
        "UPDATE sqlite_sequence SET seq = seq + ? WHERE name = 'job_events'", (NUMBERS_SKIPPED,)
    )


@dataclass(frozen=True)
class SqliteJobEvents:
    """Implementation of ``JobEvents``."""

    reader: Connection

    async def last_id(self) -> int:
        """See ``JobEvents.last_id``."""
        ((last,),) = await self.reader.rows(LAST_ID)
        return int(last)

    async def between(
        self, after: int, until: int, job_id: int | None = None, *, limit: int = MAX_EVENTS
    ) -> Sequence[JobEvent]:
        """See ``JobEvents.between``."""
        statement = BETWEEN if job_id is None else OF_JOB
        values = {"after": after, "until": until, "job_id": job_id, "limit": limit}
        rows = await self.reader.rows(statement, values)
        return [
            JobEvent(number, at, JobStatus(status), why, job_of(job))
            for number, at, status, why, *job in rows
        ]

    async def present(self, job_id: int) -> tuple[int, Job]:
        """See ``JobEvents.present``."""
        rows = await self.reader.rows(PRESENT, (job_id,))
        if not rows:
            raise JobNotFound(job_id)
        ((last, *job),) = rows
        return int(last), job_of(job)
