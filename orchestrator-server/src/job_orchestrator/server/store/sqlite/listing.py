"""Lists of jobs, newest first, at a cost that doesn't grow with the number of jobs.

A list of what a filter lets through has to meet few rows that it doesn't. So each combination of
user, service and state is a *branch*: an index has its jobs in the order of their ids, and the page
is made of the newest few of every branch. What a filter leaves open is enumerated by skip scans:
one look-up for each service (of each user, of each user with a tag).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from job_orchestrator.common.status import JobStatus
from job_orchestrator.server.model import Job
from job_orchestrator.server.store.base import Change, JobFilter, Times
from job_orchestrator.server.store.sqlite.schema import COLUMNS, job_of
from job_orchestrator.server.store.sqlite.writer import Connection

HISTORY = """
SELECT at, from_status, to_status, why FROM job_events WHERE job_id = ? ORDER BY id LIMIT 1000
"""

ALL = f"SELECT {COLUMNS} FROM jobs WHERE id < :before ORDER BY id DESC LIMIT :limit"  # noqa: S608

UNENDED = """
SELECT service, status, count(*) FROM jobs WHERE status = 'Queued' GROUP BY service
UNION ALL
SELECT service, status, count(*) FROM jobs
WHERE status IN ('Processing', 'Running', 'Submitted', 'Unknown') GROUP BY service, status
"""

LATEST = """
SELECT service, status, created_at, started_at, ended_at FROM jobs ORDER BY id DESC LIMIT ?
"""


def listing(wanted: JobFilter) -> str:
    """The statement for a filter; beside its values it takes ``before`` and ``limit``."""
    if wanted == JobFilter():
        return ALL
    scope = [] if wanted.tag is None else ["tag = :tag AND tag <> ''"]
    columns: list[str] = []
    levels: list[str] = []
    if wanted.tag is not None or wanted.user_id is not None:
        levels.append(_level("user_id", wanted.user_id is not None, scope, columns))
        columns.append("user_id")
    levels.append(_level("service", wanted.service is not None, scope, columns))
    columns.append("service")
    statuses = ", ".join(f"('{status}')" for status in wanted.statuses or JobStatus)
    same = " AND ".join([*scope, *(f"{c} = of_service.{c}" for c in columns)])
    return f"""
        WITH RECURSIVE {", ".join(levels)}, statuses (status) AS (VALUES {statuses})
        SELECT {COLUMNS} FROM jobs WHERE id IN (
            SELECT found.id
            FROM of_service CROSS JOIN statuses CROSS JOIN jobs AS found
            WHERE of_service.service IS NOT NULL AND found.id IN (
                SELECT id FROM jobs WHERE {same} AND status = statuses.status AND id < :before
                ORDER BY id DESC LIMIT :limit)
            ORDER BY found.id DESC LIMIT :limit)
        ORDER BY id DESC
    """  # noqa: S608


def _level(column: str, given: bool, scope: Sequence[str], outer: Sequence[str]) -> str:
    """A table of the values of ``column``, for each row of the level before (``outer``).

    The last row of a skip scan is NULL.
    """
    name = column.replace("_id", "").replace("service", "of_service").replace("user", "of_user")
    shown = [f"of_user.{each}" for each in outer]
    head = f"{name} ({', '.join([*outer, column])})"
    source = " FROM of_user WHERE of_user.user_id IS NOT NULL" if outer else ""
    if given:
        return f"{head} AS (SELECT {', '.join([*shown, f':{column}'])}{source})"

    def least(before: str, beyond: str) -> str:
        conditions = [*scope, *(f"{each} = {before}.{each}" for each in outer)]
        conditions += [f"{column} > {beyond}"] if beyond else []
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        return f"(SELECT min({column}) FROM jobs{where})"  # noqa: S608

    first = ", ".join([*shown, least("of_user", "")])
    following = ", ".join([*(f"{name}.{each}" for each in outer), least(name, f"{name}.{column}")])
    rest = f"SELECT {following} FROM {name} WHERE {name}.{column} IS NOT NULL"  # noqa: S608
    return f"{head} AS (SELECT {first}{source} UNION ALL {rest})"


class JobLists:
    """What is read of many jobs, or of their past."""

    def __init__(self, reader: Connection) -> None:
        self._reader = reader

    async def page(self, wanted: JobFilter, before: int, limit: int) -> Sequence[Job]:
        """At most ``limit`` jobs with ids below ``before``, the newest first."""
        values = {**wanted.values, "before": before, "limit": limit}
        return [job_of(row) for row in await self._rows(listing(wanted), values)]

    async def history(self, job: Job) -> Sequence[Change]:
        """The changes of a job, the oldest first."""
        rows = await self._rows(HISTORY, (job.id,))
        return [
            Change(at, None if before is None else JobStatus(before), JobStatus(to), why)
            for at, before, to, why in rows
        ]

    async def unended(self) -> Mapping[tuple[str, JobStatus], int]:
        """How many jobs of a service have a state, of those that have not ended."""
        rows = await self._rows(UNENDED, ())
        return {(service, JobStatus(status)): int(count) for service, status, count in rows}

    async def latest(self, limit: int) -> Sequence[Times]:
        """The times of the newest jobs."""
        rows = await self._rows(LATEST, (limit,))
        return [Times(service, JobStatus(status), *times) for service, status, *times in rows]

    async def _rows(self, statement: str, values: Any) -> list[tuple[Any, ...]]:
        return list(await self._reader.run(lambda c: c.execute(statement, values).fetchall()))
