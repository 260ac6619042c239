"""Lists of jobs, newest first, at a cost that doesn't grow with the number of jobs.

A list must not scan rows that its filter rejects. Therefore each combination of user, service and
status is read separately from an index, which has its jobs in the order of their ids, and the page
is merged from the newest jobs of all combinations. Users and services that the filter leaves open
are enumerated by skip scans: one index look-up for each value.

The statement for ``JobFilter(user_id=5, statuses=[FAILED])``, without the list of columns::

    WITH RECURSIVE of_user (user_id) AS (SELECT :user_id),
        of_service (user_id, service) AS (
            SELECT of_user.user_id,
                (SELECT min(service) FROM jobs WHERE user_id = of_user.user_id)
            FROM of_user WHERE of_user.user_id IS NOT NULL
            UNION ALL
            SELECT of_service.user_id,
                (SELECT min(service) FROM jobs
                 WHERE user_id = of_service.user_id AND service > of_service.service)
            FROM of_service WHERE of_service.service IS NOT NULL),
        statuses (status) AS (VALUES ('Failed'))
    SELECT … FROM jobs WHERE id IN (
        SELECT found.id FROM of_service CROSS JOIN statuses CROSS JOIN jobs AS found
        WHERE of_service.service IS NOT NULL AND found.id IN (
            SELECT id FROM jobs
            WHERE user_id = of_service.user_id AND service = of_service.service
                AND status = statuses.status AND id < :before
            ORDER BY id DESC LIMIT :limit)
        ORDER BY found.id DESC LIMIT :limit)
    ORDER BY id DESC
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from job_orchestrator.common.status import JobStatus
from job_orchestrator.server.model import Job, JobFilter
from job_orchestrator.server.store.lists import Change, Times, WaitingJobs
from job_orchestrator.server.store.sqlite.connection import Connection
from job_orchestrator.server.store.sqlite.rows import COLUMNS, IS_ACTIVE, job_of

HISTORY = """
SELECT at, from_status, to_status, why FROM job_events WHERE job_id = ? ORDER BY id LIMIT 1000
"""

ALL = f"SELECT {COLUMNS} FROM jobs WHERE id < :before ORDER BY id DESC LIMIT :limit"  # noqa: S608

UNENDED = f"""
SELECT service, 'Queued', jobs FROM queue WHERE jobs > 0
UNION ALL
SELECT service, status, count(*) FROM jobs INDEXED BY jobs_active
WHERE {IS_ACTIVE} GROUP BY service, status
"""  # noqa: S608

# Triggers count the queued jobs. Active ones are few.
WAITING = f"""
SELECT sum(jobs), sum(created_ms) / 1000.0, min(first) FROM (
    SELECT jobs, created_ms, NULL AS first FROM queue WHERE jobs > 0
    UNION ALL
    SELECT 0, 0, min(created_at) FROM jobs INDEXED BY jobs_queued_since WHERE status = 'Queued'
    UNION ALL
    SELECT 1, CAST(created_at * 1000 AS INTEGER), created_at
    FROM jobs INDEXED BY jobs_active WHERE {IS_ACTIVE} AND started_at IS NULL)
"""  # noqa: S608

LATEST = """
SELECT service, status, created_at, started_at, ended_at, run_s FROM jobs ORDER BY id DESC LIMIT ?
"""


def listing(wanted: JobFilter) -> str:
    """Return the statement for a filter. Its parameters are those of ``page_values``."""
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


def page_values(wanted: JobFilter, before: int, limit: int) -> Mapping[str, object]:
    """Return the parameters of a page of at most ``limit`` jobs with ids below ``before``."""
    return {
        "user_id": wanted.user_id,
        "service": wanted.service,
        "tag": wanted.tag,
        "before": before,
        "limit": limit,
    }


def _level(column: str, given: bool, scope: Sequence[str], outer: Sequence[str]) -> str:
    """Return a table of the values of ``column``, for each row of the level before (``outer``).

    ``given`` is true if the filter has one value. Otherwise the table is a skip scan, which ends
    with a row of NULL.
    """
    name = f"of_{column.removesuffix('_id')}"
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


@dataclass(frozen=True)
class SqliteJobLists:
    """Implementation of ``JobLists``."""

    reader: Connection

    async def page(self, wanted: JobFilter, before: int, limit: int) -> Sequence[Job]:
        """See ``JobLists.page``."""
        rows = await self.reader.rows(listing(wanted), page_values(wanted, before, limit))
        return [job_of(row) for row in rows]

    async def history(self, job: Job) -> Sequence[Change]:
        """See ``JobLists.history``."""
        rows = await self.reader.rows(HISTORY, (job.id,))
        return [
            Change(at, None if before is None else JobStatus(before), JobStatus(to), why)
            for at, before, to, why in rows
        ]

    async def unended(self) -> Mapping[tuple[str, JobStatus], int]:
        """See ``JobLists.unended``."""
        rows = await self.reader.rows(UNENDED)
        return {(service, JobStatus(status)): int(count) for service, status, count in rows}

    async def waiting(self) -> WaitingJobs:
        """See ``JobLists.waiting``."""
        ((count, created_s, first),) = await self.reader.rows(WAITING)
        return WaitingJobs(int(count), created_s / count if count else None, first)

    async def latest(self, limit: int) -> Sequence[Times]:
        """See ``JobLists.latest``."""
        rows = await self.reader.rows(LATEST, (limit,))
        return [Times(service, JobStatus(status), *times) for service, status, *times in rows]
