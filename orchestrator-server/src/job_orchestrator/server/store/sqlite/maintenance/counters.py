"""Counters that triggers keep: found wrong, and counted again. All functions block."""

import sqlite3

_OF_JOBS = """
SELECT user_id, status = 'Queued' AS queued, stored_bytes FROM jobs WHERE status <> 'Cleaned'
"""

_OF_ARRAYS = f"""
{_OF_JOBS} UNION ALL SELECT user_id, 0, input_bytes FROM arrays WHERE kept > 0
"""  # noqa: S608


def _counted(connection: sqlite3.Connection) -> str:
    """Return the statement that counts what each user has."""
    counts = _OF_ARRAYS if _has_arrays(connection) else _OF_JOBS
    return f"""
        SELECT user_id, sum(queued) AS queued, sum(stored_bytes) AS stored_bytes FROM ({counts})
        GROUP BY user_id
        """  # noqa: S608


def _has_arrays(connection: sqlite3.Connection) -> bool:
    """Return whether the database can hold arrays: those of earlier schema versions can't."""
    found = connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'array_inputs'")
    return found.fetchone() is not None


def wrong_usage(connection: sqlite3.Connection) -> list[int]:
    """Return users whose counters differ from the sums over their jobs."""
    rows = connection.execute(
        f"""
        SELECT DISTINCT user_id FROM (
            SELECT user_id FROM (
                SELECT user_id, queued, stored_bytes FROM usage UNION ALL {_counted(connection)})
            WHERE queued <> 0 OR stored_bytes <> 0
            GROUP BY user_id, queued, stored_bytes HAVING count(*) <> 2)
        """  # noqa: S608
    )
    return [user_id for (user_id,) in rows]


def recount_usage(connection: sqlite3.Connection) -> None:
    """Recalculate the counters of every user."""
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("DELETE FROM usage")
    connection.execute(f"INSERT INTO usage (user_id, queued, stored_bytes) {_counted(connection)}")
    connection.execute("COMMIT")


_WRONG_DEPENDENCIES = """
SELECT id FROM jobs LEFT JOIN
    (SELECT job_id, count(*) AS open FROM dependencies GROUP BY job_id) ON job_id = id
WHERE status = 'Queued' AND open_dependencies <> coalesce(open, 0) + array_waits
"""


def wrong_dependencies(connection: sqlite3.Connection) -> list[int]:
    """Return queued jobs whose number of jobs that they wait for is wrong."""
    if not _has_arrays(connection):
        return []
    return [job_id for (job_id,) in connection.execute(_WRONG_DEPENDENCIES)]


def recount_dependencies(connection: sqlite3.Connection) -> None:
    """Count again what each queued job waits for."""
    connection.execute(
        f"""
        UPDATE jobs SET open_dependencies = array_waits +
            (SELECT count(*) FROM dependencies WHERE job_id = jobs.id)
        WHERE id IN ({_WRONG_DEPENDENCIES})
        """  # noqa: S608
    )


_OF_TASKS = """
SELECT array_id, sum(ended_at IS NULL) AS unended,
    sum(ended_at IS NULL AND array_waits) AS waiting, sum(status <> 'Cleaned') AS kept
FROM jobs WHERE array_id IS NOT NULL GROUP BY array_id
"""


def wrong_arrays(connection: sqlite3.Connection) -> list[int]:
    """Return arrays whose counters differ from the counts of their tasks."""
    if not _has_arrays(connection):
        return []
    rows = connection.execute(
        f"""
        SELECT id FROM arrays JOIN ({_OF_TASKS}) AS tasks ON array_id = id
        WHERE (arrays.unended, arrays.waiting, arrays.kept)
            <> (tasks.unended, tasks.waiting, tasks.kept)
        """  # noqa: S608
    )
    return [array_id for (array_id,) in rows]


def recount_arrays(connection: sqlite3.Connection) -> None:
    """Count the tasks of each array again."""
    connection.execute(
        f"""
        UPDATE arrays SET (unended, waiting, kept) =
            (SELECT unended, waiting, kept FROM ({_OF_TASKS}) WHERE array_id = arrays.id)
        WHERE id IN (SELECT array_id FROM ({_OF_TASKS}))
        """  # noqa: S608
    )
