"""Timestamps of the hops of a job: the stages between upload and download.

Times are in seconds since the epoch. Times of the server are read from its database, times of the
client from the results.
"""

import io
import json
import sqlite3
import zipfile
from contextlib import closing
from pathlib import Path


def states(database: Path, job_id: int) -> dict[str, float]:
    """Return the time at which a job entered each of its states."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        rows = connection.execute(
            "SELECT to_status, at FROM job_events WHERE job_id = ? ORDER BY rowid", (job_id,)
        )
        return {str(status): float(at) for status, at in rows}


def count(database: Path, status: str) -> int:
    """Return the number of jobs in a state."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        ((number,),) = connection.execute("SELECT count(*) FROM jobs WHERE status = ?", (status,))
        return int(number)


def script(results: bytes) -> tuple[float, float]:
    """Return start and end of run.sh from a job's ZIP."""
    with zipfile.ZipFile(io.BytesIO(results)) as archive:
        result = json.loads(archive.read(".orchestrator/result.json"))
    return float(result["started_at"]), float(result["ended_at"])
