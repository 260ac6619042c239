"""Connections to the database file. Each has a thread, in which all of its statements run."""

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import aiosqlite

from job_orchestrator.common.errors import StartupError, StorageFull
from job_orchestrator.common.runtime import fault_injection as faults
from job_orchestrator.common.runtime.threads import in_thread
from job_orchestrator.common.storage.durable import touch_private
from job_orchestrator.server.errors import StoreError
from job_orchestrator.server.store.sqlite.maintenance.original import is_original

BUSY_TIMEOUT_MS = 30_000

CHECKPOINT_PAGES = 4000
"""Pages in the write-ahead log after which a commit writes them to the database: 16 MiB.

SQLite's 1000 are those of a hundred jobs, and each time the commit waits for two more flushes.
"""

T = TypeVar("T")

Work = Callable[[sqlite3.Connection], T]
"""Function with several statements. It runs in the thread of a connection."""

Values = Mapping[str, object] | Sequence[object]
"""Values of the parameters of a statement."""


class Connection(aiosqlite.Connection):
    """Connection that runs a whole function in its thread: one thread hop for many statements.

    aiosqlite's own methods take one hop for each statement. ``begin`` is the only place that uses
    its private interface, for which the dependency is pinned to a minor version: ``_tx`` is the
    queue of the thread, with pairs of a future and the function that provides its result; ``_conn``
    is the connection of the thread, and raises ``ValueError`` if it is closed.
    """

    def begin(self, work: Work[T]) -> "asyncio.Future[T]":
        """Queue ``work`` for the thread and return the future of its result."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        try:
            self._tx.put_nowait((future, partial(work, self._conn)))
        except ValueError:
            future.set_exception(StoreError("The database is closed"))
        return future

    async def run(self, work: Work[T]) -> T:
        """Run ``work`` in the thread and return its result."""
        try:
            return await self.begin(work)
        except sqlite3.Error as error:
            raise store_error(error) from error

    async def rows(self, statement: str, values: Values = ()) -> list[tuple[Any, ...]]:
        """Run one statement and return its rows."""
        return await self.run(lambda connection: connection.execute(statement, values).fetchall())


def store_error(error: sqlite3.Error) -> StoreError | StorageFull:
    """Return the error of the contract for an error of SQLite."""
    # Errors that the sqlite3 module raises by itself have no code.
    if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
        return StorageFull("The disk of the database is full; try again later")
    return StoreError(str(error))


async def connect(path: Path) -> Connection:
    """Open the database in WAL mode. Each statement is a transaction unless one is begun.

    Raises ``StartupError`` if the file can't be used.
    """
    try:
        # aiosqlite's thread survives a failed connect, and later reports the closed event loop on
        # standard error. Therefore failures are found before there is a thread.
        await in_thread(_try_to_open, path)
        connection = Connection(
            lambda: sqlite3.connect(path, isolation_level=None, factory=faults.database_class()), 64
        )
        await connection
        try:
            await connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
            await connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
            # Only a new file takes this mode, and only before anything is written to it.
            await connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
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


def _try_to_open(path: Path) -> None:
    # SQLite would create a file that everybody may read. The -wal and -shm files get the
    # permissions of the database.
    with contextlib.suppress(OSError):
        touch_private(path)
    with closing(sqlite3.connect(path)) as connection:
        if is_original(connection):
            raise StartupError(
                f"DB_PATH is {str(path)!r}, the database of the original job-orchestrator. Set"
                " DB_PATH and DATA_PATH to a new file and folder, and import it:"
                f" jo-server import {path} --data FOLDER, the DATA_PATH of the original"
            )
