"""Timestamps of one job, in seconds since the epoch.

Those of the server are read from its database; those of the client are in the results.
"""

import io
import json
import sqlite3
import zipfile
from contextlib import closing
from pathlib import Path


def states(database: Path, job_id: int) -> dict[str, float]:
    """Return the time of each state of a job."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        rows = connection.execute(
            "SELECT to_status, at FROM job_events WHERE job_id = ? ORDER BY rowid", (job_id,)
        )
        return {str(status): float(at) for status, at in rows}


def count(database: Path, status: str) -> int:
    """Count the jobs in this state."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        ((number,),) = connection.execute("SELECT count(*) FROM jobs WHERE status = ?", (status,))
        return int(number)


def script(results: bytes) -> tuple[float, float]:
    """Return start and end of run.sh, from the ZIP of a job."""
    with zipfile.ZipFile(io.BytesIO(results)) as archive:
        said = json.loads(archive.read(".orchestrator/result.json"))
    return float(said["started_at"]), float(said["ended_at"])
