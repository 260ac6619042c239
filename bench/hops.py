"""Where the time of one job goes, in seconds since the epoch.

What the server knows stands in its database, which is only read here; what the client knows comes
with the results.
"""

import io
import json
import sqlite3
import zipfile
from contextlib import closing
from pathlib import Path


def states(database: Path, job_id: int) -> dict[str, float]:
    """When a job got each of its states."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        rows = connection.execute(
            "SELECT to_status, at FROM job_events WHERE job_id = ? ORDER BY rowid", (job_id,)
        )
        return {str(status): float(at) for status, at in rows}


def count(database: Path, status: str) -> int:
    """How many jobs have this state now."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        ((number,),) = connection.execute("SELECT count(*) FROM jobs WHERE status = ?", (status,))
        return int(number)


def script(results: bytes) -> tuple[float, float]:
    """When run.sh began and ended, from a job's ZIP."""
    with zipfile.ZipFile(io.BytesIO(results)) as archive:
        said = json.loads(archive.read(".orchestrator/result.json"))
    return float(said["started_at"]), float(said["ended_at"])
