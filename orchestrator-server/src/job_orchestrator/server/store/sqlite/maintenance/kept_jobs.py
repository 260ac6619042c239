"""Access to the database by the commands ``backup``, ``restore``, ``check`` and ``export``.

These commands run in a process of their own, which does not serve. All functions block.
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
from job_orchestrator.server.store.sqlite.contents import INPUTS, RESULT
from job_orchestrator.server.store.sqlite.rows import IS_ENDED

Database = sqlite3.Connection
"""Database that is open for one of the commands."""

_COLUMNS_OF_JOBS = "PRAGMA table_info(jobs)"

BATCH = 500
"""Ids in one query: SQLite limits the number of parameters."""

ID_GAP = 100_000
"""Ids that are skipped after a restore, so that ids given since the backup are not given again."""


class DatabaseUnusable(DomainError):
    """The file is not a database of jo-server, or can't be read or written."""


@dataclass(frozen=True)
class KeptJob:
    """The properties of a job that determine which files it must have.

    ``inline_inputs`` and ``inline_result`` say that these are in the database.
    """

    id: int
    uuid: str
    status: JobStatus
    attempt: int
    has_output: bool
    output_sha256: bytes | None
    inline_inputs: bool
    inline_result: bool

    @property
    def needs_folder(self) -> bool:
        """True if inputs or results of the job must be in its folder."""
        return not self.inline_inputs or (self.has_output and not self.inline_result)


@contextmanager
def opened(path: Path) -> Iterator[Database]:
    """Open an existing database.

    Raises ``DatabaseUnusable``, also for errors of SQLite in the body of the ``with`` statement.
    """
    try:
        uri = f"{path.absolute().as_uri()}?mode=rw"
        with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
            connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
            yield connection
    except sqlite3.Error as error:
        raise DatabaseUnusable(f"The database {path} can't be used: {error}") from error


def copy_database(source: sqlite3.Connection, target: Path) -> None:
    """Copy the database as it is at one moment to ``target``, without blocking writers.

    Raises ``OSError``.
    """
    touch_private(target)
    with closing(sqlite3.connect(target, isolation_level=None)) as copy:
        source.backup(copy)
        # Without WAL the copy is one file.
        copy.execute("PRAGMA journal_mode = DELETE")


def schema_version(connection: sqlite3.Connection) -> int:
    """Return the number of the last migration; 0 if this is not a database of jo-server."""
    ((version,),) = connection.execute("PRAGMA user_version")
    return int(version)


def damage(connection: sqlite3.Connection) -> list[str]:
    """Return the problems that SQLite finds in the file, and references to missing rows."""
    found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(20)")]
    found += [
        f"row {row[1]} of {row[0]} refers to a row of {row[2]} that is not there"
        for row in connection.execute("PRAGMA foreign_key_check")
    ]
    return [line for line in found if line != "ok"]


def kept_jobs(connection: sqlite3.Connection) -> Iterator[KeptJob]:
    """Yield each job that is not Cleaned, active ones included."""
    return _kept_jobs(connection, "status <> 'Cleaned'", ())


def kept_job(connection: sqlite3.Connection, job_id: int) -> KeptJob | None:
    """Return a job, None if there is none with this id."""
    return next(_kept_jobs(connection, "id = ?", (job_id,)), None)


def _kept_jobs(
    connection: sqlite3.Connection, condition: str, values: Sequence[object]
) -> Iterator[KeptJob]:
    in_database = "0, 0"
    if _has_contents(connection):
        in_database = (
            "EXISTS (SELECT 1 FROM job_inputs WHERE job_id = jobs.id),"
            " EXISTS (SELECT 1 FROM job_results WHERE job_id = jobs.id)"
        )
    sha256 = "output_sha256" if _has_digests(connection) else "NULL"
    rows = connection.execute(
        f"SELECT id, uuid, status, attempt, has_output, {sha256},"  # noqa: S608
        f" {in_database} FROM jobs WHERE {condition}",
        values,
    )
    for job_id, uuid, status, attempt, has_output, digest, *flags in rows:
        yield KeptJob(
            job_id, uuid, JobStatus(status), attempt, bool(has_output), digest, *map(bool, flags)
        )


def inline_inputs(connection: sqlite3.Connection, job: KeptJob) -> bytes | None:
    """Return the inputs of a job, None if they are not in the database."""
    return _blob(connection, INPUTS, job) if job.inline_inputs else None


def inline_result(connection: sqlite3.Connection, job: KeptJob) -> bytes | None:
    """Return the results of a job, None if they are not in the database."""
    return _blob(connection, RESULT, job) if job.inline_result else None


def _blob(connection: sqlite3.Connection, statement: str, job: KeptJob) -> bytes | None:
    row = connection.execute(statement, (job.id,)).fetchone()
    return None if row is None else bytes(row[0])


def _has_digests(connection: sqlite3.Connection) -> bool:
    """Return whether the database has digests of results: earlier schema versions have none."""
    return any(name == "output_sha256" for _, name, *_ in connection.execute(_COLUMNS_OF_JOBS))


def _has_contents(connection: sqlite3.Connection) -> bool:
    """Return whether the database can hold files: those of earlier schema versions can't."""
    found = connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'job_inputs'")
    return found.fetchone() is not None


def cleaned_of(connection: sqlite3.Connection, ids: Sequence[int]) -> set[int]:
    """Return those of ``ids`` that are Cleaned."""
    found: set[int] = set()
    for start in range(0, len(ids), BATCH):
        batch = ids[start : start + BATCH]
        marks = ", ".join("?" for _ in batch)
        statement = f"SELECT id FROM jobs WHERE status = 'Cleaned' AND id IN ({marks})"  # noqa: S608
        found.update(job_id for (job_id,) in connection.execute(statement, batch))
    return found


def mark_cleaned(connection: sqlite3.Connection, ids: Iterable[int], why: str, now: float) -> None:
    """Change the status of ended jobs to Cleaned."""
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(
        f"UPDATE jobs SET status = 'Cleaned', message = ?, changed_at = ? "  # noqa: S608
        f"WHERE id = ? AND {IS_ENDED}",
        [(why, now, job_id) for job_id in ids],
    )
    connection.execute("COMMIT")


def forget_output(connection: sqlite3.Connection, ids: Iterable[int]) -> None:
    """Record that ended jobs do not have output."""
    values = [(job_id,) for job_id in ids]
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(
        "UPDATE jobs SET has_output = 0, output_bytes = NULL, output_sha256 = NULL WHERE id = ?",
        values,
    )
    if _has_contents(connection):
        connection.executemany("DELETE FROM job_results WHERE job_id = ?", values)
    connection.execute("COMMIT")


def leave_id_gap(connection: sqlite3.Connection) -> None:
    """Skip ``ID_GAP`` ids after those of the existing jobs."""
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
    """Return jobs whose last event does not lead to their status: id, status, last event."""
    rows = connection.execute(_WRONG_HISTORIES)
    return [(job_id, status, last or "nothing") for job_id, status, last in rows]


def complete_histories(connection: sqlite3.Connection) -> None:
    """Add the event that leads to the status of a job where it is missing."""
    connection.execute(
        f"""
        INSERT INTO job_events (job_id, at, from_status, to_status, why)
        SELECT id, changed_at, NULL, status, 'Added by jo-server check'
        FROM jobs WHERE id IN (SELECT id FROM ({_WRONG_HISTORIES}))
        """  # noqa: S608
    )


_COUNTED = """
SELECT user_id, sum(status = 'Queued') AS queued,
    sum(stored_bytes) AS stored_bytes
FROM jobs WHERE status <> 'Cleaned' GROUP BY user_id
"""


def wrong_usage(connection: sqlite3.Connection) -> list[int]:
    """Return users whose counters differ from the sums over their jobs."""
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
    """Recalculate the counters of every user."""
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("DELETE FROM usage")
    connection.execute(f"INSERT INTO usage (user_id, queued, stored_bytes) {_COUNTED}")
    connection.execute("COMMIT")


_WRONG_DEPENDENCIES = """
SELECT id FROM jobs LEFT JOIN
    (SELECT job_id, count(*) AS open FROM dependencies GROUP BY job_id) ON job_id = id
WHERE status = 'Queued' AND open_dependencies <> coalesce(open, 0)
"""


def wrong_dependencies(connection: sqlite3.Connection) -> list[int]:
    """Return queued jobs whose number of jobs that they wait for is wrong."""
    found = connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'dependencies'")
    if found.fetchone() is None:
        return []
    return [job_id for (job_id,) in connection.execute(_WRONG_DEPENDENCIES)]


def recount_dependencies(connection: sqlite3.Connection) -> None:
    """Count again what each queued job waits for."""
    connection.execute(
        f"""
        UPDATE jobs SET open_dependencies =
            (SELECT count(*) FROM dependencies WHERE job_id = jobs.id)
        WHERE id IN ({_WRONG_DEPENDENCIES})
        """  # noqa: S608
    )


def runs(connection: sqlite3.Connection) -> Iterator[tuple[int, float, float, str, int]]:
    """Yield user, arrival, run time, service and priority of each job that has run."""
    yield from connection.execute(
        """
        SELECT user_id, created_at, max(coalesce(run_s, ended_at - started_at), 0.001),
            service, priority
        FROM jobs WHERE started_at IS NOT NULL AND ended_at IS NOT NULL
        """
    )
