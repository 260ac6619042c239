"""Schema of the database: numbered SQL files, each applied once."""

import re
import sqlite3
from importlib import resources

from job_orchestrator.common.errors import StartupError
from job_orchestrator.common.runtime.threads import in_thread
from job_orchestrator.server.errors import DatabaseTooNew
from job_orchestrator.server.store.sqlite.connection import Connection


async def migrate(connection: Connection) -> None:
    """Apply the migrations that the database does not have yet, each in a transaction.

    ``PRAGMA user_version`` is the number of the last one. Raises ``DatabaseTooNew`` for a database
    of a later version, and changes nothing; raises ``StartupError`` if a migration fails.
    """
    migrations = await in_thread(_migrations)
    version = await _user_version(connection)
    if version > len(migrations):
        raise DatabaseTooNew(
            f"The database has schema version {version}; this jo-server knows {len(migrations)}."
            " Install the version that wrote it, or a later one"
        )
    for number, script in enumerate(migrations[version:], start=version + 1):
        # executescript stops at the first error; the transaction then undoes the whole script.
        try:
            await connection.executescript(
                f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {number};\nCOMMIT;"
            )
        except sqlite3.Error as error:
            if connection.in_transaction:
                await connection.rollback()
            raise StartupError(f"Migration {number} of the database failed: {error}") from error


async def _user_version(connection: Connection) -> int:
    (row,) = await connection.execute_fetchall("PRAGMA user_version")
    return int(row[0])


def _migrations() -> list[str]:
    folder = resources.files("job_orchestrator.server.store.sqlite") / "migrations"
    files = sorted(file.name for file in folder.iterdir() if re.match(r"\d{4}_", file.name))
    return [(folder / name).read_text("utf-8") for name in files]
