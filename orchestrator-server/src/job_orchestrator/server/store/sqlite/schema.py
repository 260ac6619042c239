"""The database file: opening, migrating, and the job row as a value."""

import contextlib
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import fields
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import aiosqlite

from job_orchestrator.common.errors import StartupError, StorageFull
from job_orchestrator.common.runtime import fault_injection as faults
from job_orchestrator.common.runtime.threads import in_thread
from job_orchestrator.common.status import ACTIVE_JOB, DISPATCHED_JOB, FINAL_JOB, JobStatus
from job_orchestrator.common.storage.durable import touch_private
from job_orchestrator.server.errors import DatabaseTooNew
from job_orchestrator.server.model import Job
from job_orchestrator.server.store.sqlite.writer import Connection

BUSY_TIMEOUT_MS = 30_000

DatabaseError = sqlite3.Error
"""What every call of the store may raise: the disk, or the file, is not as it should be."""


_FIELDS = tuple(field.name for field in fields(Job))
# The name of a client is in a column that was called after its URL.
COLUMNS = ", ".join("client_url" if name == "client" else name for name in _FIELDS)


def job_of(row: Any) -> Job:
    """The job of a row that was selected with ``COLUMNS``."""
    values = dict(zip(_FIELDS, row, strict=True))
    values["status"] = JobStatus(values["status"])
    values["has_output"] = bool(values["has_output"])
    values["kill_requested"] = bool(values["kill_requested"])
    return Job(**values)


def _listed(statuses: frozenset[JobStatus]) -> str:
    # Sorted, to be the very expression of the partial indexes: only then does SQLite use them.
    return ", ".join(f"'{status}'" for status in sorted(statuses))


IS_ACTIVE = f"status IN ({_listed(ACTIVE_JOB)})"
IS_DISPATCHED = f"status IN ({_listed(DISPATCHED_JOB)})"
IS_ENDED = f"status IN ({_listed(FINAL_JOB)})"
HAS_KEY = "idempotency_key IS NOT NULL AND status <> 'Cleaned'"


@cache
def status_in(statuses: frozenset[JobStatus]) -> str:
    """A condition on ``status``; the states are our own words, not input."""
    return f"status IN ({_listed(statuses)})"


async def connect(path: Path) -> Connection:
    """Open the database in WAL mode, each statement its own transaction unless one is begun.

    Raises ``StartupError`` if the file can't be used.
    """
    try:
        # Tried here first: aiosqlite's thread outlives a failed connect, and then complains of the
        # closed event loop on standard error.
        await in_thread(_try_to_open, path)
        connection = Connection(
            lambda: sqlite3.connect(path, isolation_level=None, factory=faults.database_class()), 64
        )
        await connection
        try:
            await connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
            await connection.execute("PRAGMA journal_mode = WAL")
            await connection.execute("PRAGMA foreign_keys = ON")
        except BaseException:
            await connection.close()
            raise
    except sqlite3.Error as error:
        raise StartupError(
            f"DB_PATH is {str(path)!r}, which can't be used: {error}. It must be a SQLite file, or"
            " a new one, in a folder that exists and is writable"
        ) from error
    return connection


@contextmanager
def full_database_as_domain_error() -> Iterator[None]:
    """Turn SQLite's "database or disk is full" into ``StorageFull``."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
            raise StorageFull("The disk of the database is full; try again later") from error
        raise


def _try_to_open(path: Path) -> None:
    # SQLite would let everybody read it. Its -wal and -shm get the permissions that it has.
    with contextlib.suppress(OSError):
        touch_private(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version")


async def migrate(connection: aiosqlite.Connection) -> None:
    """Bring the schema up to date, one numbered file after the other, each in a transaction.

    ``PRAGMA user_version`` is the number of the last one. Raises ``DatabaseTooNew`` for a database
    of a later version, which is left as it is.
    """
    migrations = await in_thread(_migrations)
    version = await _user_version(connection)
    if version > len(migrations):
        raise DatabaseTooNew(
            f"The database has schema version {version}; this jo-server knows {len(migrations)}."
            " Install the version that wrote it, or a later one"
        )
    for number, script in enumerate(migrations[version:], start=version + 1):
        # executescript runs until the first error; the transaction makes it all or nothing.
        try:
            await connection.executescript(
                f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {number};\nCOMMIT;"
            )
        except sqlite3.Error as error:
            if connection.in_transaction:
                await connection.rollback()
            raise StartupError(f"Migration {number} of the database failed: {error}") from error


async def _user_version(connection: aiosqlite.Connection) -> int:
    (row,) = await connection.execute_fetchall("PRAGMA user_version")
    return int(row[0])


def _migrations() -> list[str]:
    folder = resources.files("job_orchestrator.server.store.sqlite") / "migrations"
    files = sorted(file.name for file in folder.iterdir() if re.match(r"\d{4}_", file.name))
    return [(folder / name).read_text("utf-8") for name in files]
