"""The database of the original, the job-orchestrator written in Rust. It is only read."""

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from job_orchestrator.common.errors import DomainError

PAGE = 500
"""Rows that are read in one query: a long query would block the original, which may be serving."""

_BUSY_TIMEOUT_S = 30.0
_COLUMNS = "id, user_id, service, status, loc, dest_id, created_at"


class NoOriginal(DomainError):
    """The file is not a database of the original's server, or can't be read."""


class OriginalRow(NamedTuple):
    """A row of the original. SQLite enforces no types there: any value may be of any type."""

    id: object
    user_id: object
    service: object
    status: object
    loc: object
    dest_id: object
    created_at: object


def is_original(connection: sqlite3.Connection) -> bool:
    """Return whether a database is that of the original's server."""
    columns = {name for _, name, *_ in connection.execute("PRAGMA table_info(jobs)")}
    return "loc" in columns and "uuid" not in columns


@contextmanager
def opened_original(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the database of the original without changing it. Raises ``NoOriginal``.

    If the original was killed while it wrote, SQLite has to undo that, and does it in a copy.
    """
    with tempfile.TemporaryDirectory(prefix="jo-import-") as folder:
        try:
            with closing(_connect(path, "ro")) as connection:
                if _is_readable(connection):
                    yield _checked(connection, path)
                    return
            for file in (path, *path.parent.glob(f"{path.name}-*")):
                shutil.copyfile(file, Path(folder) / file.name)
            with closing(_connect(Path(folder) / path.name, "rw")) as connection:
                yield _checked(connection, path)
        except (sqlite3.Error, OSError) as error:
            raise NoOriginal(f"The database {path} can't be read: {error}") from error


def count_of(connection: sqlite3.Connection) -> int:
    """Return the number of rows."""
    ((count,),) = connection.execute("SELECT count(*) FROM jobs")
    return int(count)


def last_id_of(connection: sqlite3.Connection) -> int:
    """Return the greatest id that was ever given; the job may have been removed since."""
    ((last,),) = connection.execute(
        "SELECT max(coalesce((SELECT max(id) FROM jobs), 0),"
        " coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'jobs'), 0))"
    )
    return int(last)


def pages_of(connection: sqlite3.Connection) -> Iterator[Sequence[OriginalRow]]:
    """Yield all rows in the order of their ids, ``PAGE`` at a time."""
    after = -(2**63)
    while True:
        rows = connection.execute(
            f"SELECT {_COLUMNS} FROM jobs WHERE id > ? ORDER BY id LIMIT {PAGE}",  # noqa: S608
            (after,),
        ).fetchall()
        if not rows:
            return
        after = rows[-1][0]
        yield [OriginalRow(*row) for row in rows]


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    connection = sqlite3.connect(uri, uri=True, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
    connection.text_factory = lambda text: text.decode("utf-8", "replace")
    return connection


def _is_readable(connection: sqlite3.Connection) -> bool:
    """Return False if an interrupted change has to be undone, which a reader is not allowed to."""
    try:
        connection.execute("SELECT 1 FROM sqlite_schema").fetchone()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode in (sqlite3.SQLITE_READONLY_ROLLBACK, sqlite3.SQLITE_CANTOPEN):
            return False
        raise
    return True


def _checked(connection: sqlite3.Connection, path: Path) -> sqlite3.Connection:
    """Return the connection. Raises ``NoOriginal`` for any other database."""
    if is_original(connection):
        return connection
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema")}
    what = "it has no table of jobs with a column loc"
    if "payloads" in tables:
        what = "it is that of a client; give the DB_PATH of the server"
    elif "job_events" in tables:
        what = "it is one of jo-server"
    raise NoOriginal(f"{path} is not the database of the original's server: {what}")
