"""Size of the database file: freed pages are reused and given back."""

import contextlib
import logging
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest

from job_orchestrator.common.runtime.threads import in_thread
from job_orchestrator.common.status import JobStatus
from job_orchestrator.server.model import Job
from job_orchestrator.server.store.base import JobStore
from job_orchestrator.server.store.sqlite.schema import RESERVE_PAGES
from job_orchestrator.server.store.sqlite.store import open_store
from stores import Database

BLOCK = b"x" * 40_000
PAGES_OF_BLOCK = 10


async def create(store: JobStore, count: int) -> Sequence[Job]:
    """Create jobs with inputs."""
    return [await store.create(f"{id(BLOCK)}{n}", 1, "x", inputs=BLOCK) for n in range(count)]


async def clean(store: JobStore, jobs: Sequence[Job]) -> None:
    """End jobs and remove their files."""
    for job in jobs:
        ended = await store.transition(job, JobStatus.KILLED, "")
        await store.transition(ended, JobStatus.CLEANED, "")


def pages(database: Database) -> int:
    """Return the number of pages of the database, in the file or in its WAL."""
    with database() as connection:
        ((count,),) = connection.execute("PRAGMA page_count")
        return int(count)


async def test_pages_of_removed_files_are_reused(
    sqlite_store: JobStore, sqlite_database: Database
) -> None:
    sizes = []
    for round_ in range(4):
        jobs = [
            await sqlite_store.create(f"{round_}-{n}", 1, "x", inputs=BLOCK) for n in range(100)
        ]
        await clean(sqlite_store, jobs)
        await sqlite_store.release_space()
        sizes.append(pages(sqlite_database))
    assert sizes[0] > 100 * PAGES_OF_BLOCK
    assert sizes[3] - sizes[0] < 50, "only rows of jobs are added"


async def test_pages_beyond_the_reserve_are_given_back(
    sqlite_store: JobStore, sqlite_database: Database, sqlite_path: Path
) -> None:
    count = 2 * RESERVE_PAGES // PAGES_OF_BLOCK
    jobs = await create(sqlite_store, count)
    full = pages(sqlite_database)
    await clean(sqlite_store, jobs)
    await sqlite_store.release_space()
    left = pages(sqlite_database)
    assert full - left > RESERVE_PAGES * 0.8
    with sqlite_database() as connection:
        ((free,),) = connection.execute("PRAGMA freelist_count")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert free == pytest.approx(RESERVE_PAGES, abs=5)
    assert len(await in_thread(sqlite_path.read_bytes)) == left * 4096


def forget_release(path: Path) -> None:
    """Turn the database into one that was created by an earlier version."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA auto_vacuum = NONE")
        connection.execute("VACUUM")


def mode(path: Path) -> object:
    """Return whether pages of the database can be given back: 2 if so."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute("PRAGMA auto_vacuum").fetchone()[0]


async def test_database_of_an_earlier_version_is_rewritten_once(
    sqlite_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "job_orchestrator.server.store.sqlite.schema")
    async with open_store(sqlite_path) as store:
        assert mode(sqlite_path) == 2, "a database that was just created"
        await create(store, 3)
    assert caplog.messages == []
    forget_release(sqlite_path)
    assert mode(sqlite_path) == 0
    for _ in range(2):
        async with open_store(sqlite_path) as store:
            assert await store.inputs(await store.get(3)) == BLOCK
    assert mode(sqlite_path) == 2
    assert len(caplog.messages) == 1
    assert "Rewriting" in caplog.text
