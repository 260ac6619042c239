"""Fills a job database with any number of ended and queued jobs."""

import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

USERS = 1000
SERVICE = "bench"

# One statement for any number of rows. The triggers write the history of each job, so the database
# is the same as after that many submissions.
FILL = """
WITH RECURSIVE numbers (n) AS (
    SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :count
)
INSERT INTO jobs (uuid, user_id, service, status, message, attempt, client_url, dest_id, exit_code,
    created_at, changed_at, ended_at)
SELECT lower(hex(randomblob(16))), n % :users, :service, :status, '', :ended, NULL, NULL,
    :exit_code, :now, :now, CASE WHEN :ended THEN :now END
FROM numbers
"""


def add_ended(database: Path, count: int) -> None:
    """Add failed jobs that ended now."""
    _fill(database, count, {"status": "Failed", "ended": 1, "exit_code": 1})


def add_queued(database: Path, count: int) -> None:
    """Add queued jobs, distributed over all users in rotation."""
    _fill(database, count, {"status": "Queued", "ended": 0, "exit_code": None})


def put_back(database: Path) -> None:
    """Set claimed jobs back to Queued."""
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("UPDATE jobs SET status = 'Queued' WHERE status = 'Processing'")


def ids(database: Path, status: str, count: int) -> Sequence[int]:
    """Return ids of jobs in a state, evenly spread over all of them."""
    with closing(sqlite3.connect(database)) as connection:
        found = connection.execute("SELECT id FROM jobs WHERE status = ? ORDER BY id", (status,))
        every = [int(number) for (number,) in found]
    return every[:: max(1, len(every) // count)][:count]


def _fill(database: Path, count: int, values: dict[str, object]) -> None:
    if count == 0:
        return
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        # The data need not be durable.
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA cache_size = -200000")
        connection.execute(
            FILL,
            {"count": count, "users": USERS, "service": SERVICE, "now": time.time(), **values},
        )
