"""Rows of jobs that are imported from another system, with the ids that they have there."""

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from job_orchestrator.common.status import JobStatus
from job_orchestrator.server.store.sqlite.store import open_store

IMPORTED = "Imported from the original job-orchestrator"
"""Begin of the reason of an imported job, until jo-server changes the state of the job."""


@dataclass(frozen=True)
class ImportedJob:
    """A row to write. See ``Job`` for the fields."""

    id: int
    uuid: str
    user_id: int
    service: str
    status: JobStatus
    message: str
    attempt: int
    client_url: str | None
    dest_id: int | None
    has_output: bool
    created_at: float
    changed_at: float
    ended_at: float | None
    input_bytes: int | None
    output_bytes: int | None


@dataclass(frozen=True)
class PresentJob:
    """A job that is in the database. ``as_imported``: jo-server has not changed it since."""

    uuid: str
    status: JobStatus
    dest_id: int | None
    as_imported: bool

    def has(self, status: JobStatus, dest_id: int | None) -> bool:
        """Return whether the job has this state, at this payload of its client."""
        return (self.status, self.dest_id) == (status, dest_id)


_NAMES = tuple(field.name for field in fields(ImportedJob))
_CHANGING = (
    *("status", "message", "attempt", "client_url", "dest_id"),
    *("has_output", "changed_at", "ended_at", "input_bytes", "output_bytes"),
)
_WRITE = f"""
INSERT INTO jobs ({", ".join(_NAMES)}) VALUES ({", ".join(f":{name}" for name in _NAMES)})
ON CONFLICT (id) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in _CHANGING)}
"""  # noqa: S608


async def create_database(path: Path) -> None:
    """Create the database, or bring an existing one to the present schema."""
    async with open_store(path):
        pass


def present_jobs(connection: sqlite3.Connection, ids: Sequence[int]) -> Mapping[int, PresentJob]:
    """Return those of ``ids``, at most a few hundred, that are in the database."""
    marks = ", ".join("?" for _ in ids)
    rows = connection.execute(
        "SELECT id, uuid, status, dest_id, message, kill_requested FROM jobs"  # noqa: S608
        f" WHERE id IN ({marks})",
        ids,
    )
    return {
        job_id: PresentJob(
            uuid,
            JobStatus(status),
            dest_id,
            message.startswith(IMPORTED) and not kill_requested,
        )
        for job_id, uuid, status, dest_id, message, kill_requested in rows
    }


def known_uuids(connection: sqlite3.Connection, uuids: Sequence[str]) -> Mapping[str, int]:
    """Return the ids of the jobs that have one of ``uuids``, at most a few hundred."""
    marks = ", ".join("?" for _ in uuids)
    return dict(
        connection.execute(f"SELECT uuid, id FROM jobs WHERE uuid IN ({marks})", uuids)  # noqa: S608
    )


def write_jobs(connection: sqlite3.Connection, jobs: Sequence[ImportedJob]) -> None:
    """Add jobs, or change the rows that an earlier import has added, in one durable transaction."""
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(_WRITE, [asdict(job) for job in jobs])
    connection.execute("COMMIT")


def skip_ids(connection: sqlite3.Connection, last: int) -> None:
    """Make the ids of later jobs greater than ``last``."""
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(
        "INSERT INTO sqlite_sequence (name, seq) SELECT 'jobs', 0"
        " WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'jobs')"
    )
    connection.execute("UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = 'jobs'", (last,))
    connection.execute("COMMIT")
