"""The database as the commands ``backup``, ``restore`` and ``check`` see it: without the server.

Nothing here is called while serving. All functions block.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from job_orchestrator.common.errors import DomainError
from job_orchestrator.common.status import JobStatus
from job_orchestrator.common.storage.durable import touch_private
from job_orchestrator.server.store.sqlite.connection import BUSY_TIMEOUT_MS
from job_orchestrator.server.store.sqlite.rows import IS_ENDED

Database = sqlite3.Connection
"""A database that is open for one of the commands."""

BATCH = 500

ID_GAP = 100_000
"""Ids that are left out after a restore: those given since the backup must not be given again."""


class DatabaseUnusable(DomainError):
    """The file is no database of a jo-server, or can't be read or written."""


@dataclass(frozen=True)
class KeptJob:
    """What of a job tells which files it must have."""

    id: int
    uuid: str
    status: JobStatus
    attempt: int
    has_output: bool


@contextmanager
def opened(path: Path) -> Iterator[Database]:
    """Open a database that is there. Raises ``DatabaseUnusable``, also for what is done with it."""
    try:
        uri = f"{path.absolute().as_uri()}?mode=rw"
        with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
            connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
            yield connection
    except sqlite3.Error as error:
        raise DatabaseUnusable(f"The database {path} can't be used: {error}") from error


def copy_database(source: sqlite3.Connection, target: Path) -> None:
    """Make ``target`` a copy of the database as it is at one moment; writers are not held up.

    Raises ``OSError``.
    """
    touch_private(target)
    with closing(sqlite3.connect(target, isolation_level=None)) as copy:
        source.backup(copy)
        # One file, with nothing beside it.
        copy.execute("PRAGMA journal_mode = DELETE")


def schema_version(connection: sqlite3.Connection) -> int:
    """Number of the last migration; 0: this is no database of a jo-server."""
    ((version,),) = connection.execute("PRAGMA user_version")
    return int(version)


def damage(connection: sqlite3.Connection) -> list[str]:
    """What SQLite itself finds wrong with the file, and rows that lead nowhere."""
    found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(20)")]
    found += [
        f"row {row[1]} of {row[0]} refers to a row of {row[2]} that is not there"
        for row in connection.execute("PRAGMA foreign_key_check")
    ]
    return [line for line in found if line != "ok"]


def kept_jobs(connection: sqlite3.Connection) -> Iterator[KeptJob]:
    """Every job whose files are kept."""
    rows = connection.execute(
        "SELECT id, uuid, status, attempt, has_output FROM jobs WHERE status <> 'Cleaned'"
    )
    for job_id, uuid, status, attempt, has_output in rows:
        yield KeptJob(job_id, uuid, JobStatus(status), attempt, bool(has_output))


def cleaned_of(connection: sqlite3.Connection, ids: Sequence[int]) -> set[int]:
    """Those of ``ids`` that are Cleaned now."""
    found: set[int] = set()
    for start in range(0, len(ids), BATCH):
        batch = ids[start : start + BATCH]
        marks = ", ".join("?" for _ in batch)
        statement = f"SELECT id FROM jobs WHERE status = 'Cleaned' AND id IN ({marks})"  # noqa: S608
        found.update(job_id for (job_id,) in connection.execute(statement, batch))
    return found


def mark_cleaned(connection: sqlite3.Connection, ids: Iterable[int], why: str, now: float) -> None:
    """Make ended jobs Cleaned."""
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(
        f"UPDATE jobs SET status = 'Cleaned', message = ?, changed_at = ? "  # noqa: S608
        f"WHERE id = ? AND {IS_ENDED}",
        [(why, now, job_id) for job_id in ids],
    )
    connection.execute("COMMIT")


def forget_output(connection: sqlite3.Connection, ids: Iterable[int]) -> None:
    """Note that ended jobs have no output (any more)."""
    connection.executemany(
        "UPDATE jobs SET has_output = 0, output_bytes = NULL WHERE id = ?",
        [(job_id,) for job_id in ids],
    )


def leave_id_gap(connection: sqlite3.Connection) -> None:
    """Let the ids of new jobs begin well after those of the jobs that are there."""
    changed = connection.execute(
        "UPDATE sqlite_sequence SET seq = seq + ? WHERE name = 'jobs'", (ID_GAP,)
    )
    if changed.rowcount == 0:
        connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('jobs', ?)", (ID_GAP,))


_WRONG_HISTORIES = """
SELECT id, status, last FROM (
    SELECT jobs.id, jobs.status, (
        SELECT to_status FROM job_events WHERE job_id = jobs.id
        ORDER BY job_events.rowid DESC LIMIT 1) AS last
    FROM jobs)
WHERE last IS NOT status
"""


def wrong_histories(connection: sqlite3.Connection) -> list[tuple[int, str, str]]:
    """Jobs whose last event is not how they came to their status: id, status, last event."""
    rows = connection.execute(_WRONG_HISTORIES)
    return [(job_id, status, last or "nothing") for job_id, status, last in rows]


def complete_histories(connection: sqlite3.Connection) -> None:
    """Add the event that leads to the status of a job, where it is missing."""
    connection.execute(
        f"""
        INSERT INTO job_events (job_id, at, from_status, to_status, why)
        SELECT id, changed_at, NULL, status, 'Added by jo-server check'
        FROM jobs WHERE id IN (SELECT id FROM ({_WRONG_HISTORIES}))
        """  # noqa: S608
    )


_COUNTED = """
SELECT user_id, sum(status = 'Queued') AS queued,
    sum(coalesce(input_bytes, 0) + coalesce(output_bytes, 0)) AS stored_bytes
FROM jobs WHERE status <> 'Cleaned' GROUP BY user_id
"""


def wrong_usage(connection: sqlite3.Connection) -> list[int]:
    """Users whose counters of what is queued and stored are not what the jobs add up to."""
    rows = connection.execute(
        f"""
        SELECT DISTINCT user_id FROM (
            SELECT user_id FROM (
                SELECT user_id, queued, stored_bytes FROM usage UNION ALL {_COUNTED})
            WHERE queued <> 0 OR stored_bytes <> 0
            GROUP BY user_id, queued, stored_bytes HAVING count(*) <> 2)
        """  # noqa: S608
    )
    return [user_id for (user_id,) in rows]


def recount_usage(connection: sqlite3.Connection) -> None:
    """Count anew what every user has queued and stored."""
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("DELETE FROM usage")
    connection.execute(f"INSERT INTO usage (user_id, queued, stored_bytes) {_COUNTED}")
    connection.execute("COMMIT")
