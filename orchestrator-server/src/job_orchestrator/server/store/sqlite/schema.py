"""Format of the database file: its schema, and the mode in which it gives free pages back.

The schema is a sequence of numbered SQL files, each applied once. Free pages are reused for other
rows, and given back to the file system beyond a reserve.
"""

import logging
import re
import sqlite3
from importlib import resources
from pathlib import Path

from job_orchestrator.common.errors import StartupError
from job_orchestrator.common.runtime.threads import in_thread
from job_orchestrator.server.errors import DatabaseTooNew
from job_orchestrator.server.store.sqlite.connection import Connection

logger = logging.getLogger(__name__)

PAGES_PER_TRANSACTION = 500
"""Pages that one transaction moves: about 5 ms, for which other changes wait."""

RESERVE_PAGES = 1000
"""Free pages that stay in the file, or a tenth of the file if that is more.

Jobs come and go all the time: pages that are given back would be asked for again.
"""

INCREMENTAL = 2
"""The value of ``PRAGMA auto_vacuum`` with which pages can be given back one by one."""


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


async def enable_release(connection: Connection, path: Path) -> None:
    """Make a database of an earlier version able to give pages back. Rewrites the file once.

    Without enough disk space the database stays as it is, and only reuses its free pages.
    """
    ((mode,),) = await connection.rows("PRAGMA auto_vacuum")
    if mode == INCREMENTAL:
        return
    logger.info("Rewriting the database %s once, so that it can shrink later", path)

    def rewrite(connection: sqlite3.Connection) -> str:
        try:
            connection.execute(f"PRAGMA auto_vacuum = {INCREMENTAL}")
            connection.execute("VACUUM")
        except sqlite3.Error as error:
            return str(error)
        return ""

    if problem := await connection.run(rewrite):
        logger.warning(
            "The database %s could not be rewritten and will not shrink: %s. It is tried again at"
            " the next start",
            path,
            problem,
        )


def release_pages(connection: sqlite3.Connection) -> bool:
    """Give back some free pages beyond the reserve. Returns whether there are more."""
    ((free,),) = connection.execute("PRAGMA freelist_count")
    ((total,),) = connection.execute("PRAGMA page_count")
    surplus = int(free) - max(RESERVE_PAGES, int(total) // 10)
    for _ in range(min(surplus, PAGES_PER_TRANSACTION)):
        # The module sqlite3 ends a statement without columns after its first step: one page.
        connection.execute("PRAGMA incremental_vacuum(1)")
    return surplus > PAGES_PER_TRANSACTION
