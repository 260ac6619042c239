"""The numbered changes of all jobs, as streams read them."""

from collections.abc import Sequence
from typing import Any

from job_orchestrator.common.status import JobStatus
from job_orchestrator.server.errors import JobNotFound
from job_orchestrator.server.model import Job
from job_orchestrator.server.store.base import JobEvent
from job_orchestrator.server.store.sqlite.schema import COLUMNS, job_of
from job_orchestrator.server.store.sqlite.writer import Connection

LAST_ID = "SELECT coalesce(max(id), 0) FROM job_events"
JOB_COLUMNS = ", ".join(f"jobs.{name}" for name in COLUMNS.split(", "))
BETWEEN = f"""
SELECT event.id, event.at, event.to_status, event.why, {JOB_COLUMNS}
FROM job_events AS event CROSS JOIN jobs ON jobs.id = event.job_id
WHERE event.id > :after AND event.id <= :until ORDER BY event.id
"""  # noqa: S608
OF_JOB = f"""
SELECT event.id, event.at, event.to_status, event.why, {JOB_COLUMNS}
FROM job_events AS event CROSS JOIN jobs ON jobs.id = event.job_id
WHERE event.job_id = :job_id AND event.id > :after AND event.id <= :until ORDER BY event.id
"""  # noqa: S608
PRESENT = f"""
SELECT (SELECT max(id) FROM job_events WHERE job_id = jobs.id), {COLUMNS} FROM jobs WHERE id = ?
"""  # noqa: S608


class JobEvents:
    """Reads them."""

    def __init__(self, reader: Connection) -> None:
        self._reader = reader

    async def last_id(self) -> int:
        """The number of the last one; 0 if there is none."""
        ((last,),) = await self._rows(LAST_ID, ())
        return int(last)

    async def between(
        self, after: int, until: int, job_id: int | None = None
    ) -> Sequence[JobEvent]:
        """Those after number ``after`` up to ``until``, in order; of all jobs or of one."""
        statement = BETWEEN if job_id is None else OF_JOB
        values = {"after": after, "until": until, "job_id": job_id}
        rows = await self._rows(statement, values)
        return [
            JobEvent(number, at, JobStatus(status), why, job_of(job))
            for number, at, status, why, *job in rows
        ]

    async def present(self, job_id: int) -> tuple[int, Job]:
        """A job, and the number of its last event at that moment. Raises ``JobNotFound``."""
        rows = await self._rows(PRESENT, (job_id,))
        if not rows:
            raise JobNotFound(job_id)
        ((last, *job),) = rows
        return int(last), job_of(job)

    async def _rows(self, statement: str, values: Any) -> list[tuple[Any, ...]]:
        return list(await self._reader.run(lambda c: c.execute(statement, values).fetchall()))
