"""Failures of SQLite: errors that reach the caller, and the state of the file afterwards."""

import asyncio
import sqlite3
from collections import Counter
from pathlib import Path

import pytest

from job_orchestrator.common.errors import StartupError, StorageFull
from job_orchestrator.common.status import JobStatus
from job_orchestrator.server.errors import StoreError
from job_orchestrator.server.store.base import JobStore
from job_orchestrator.server.store.installation import Installation
from job_orchestrator.server.store.sqlite.connection import connect
from job_orchestrator.server.store.sqlite.schema import migrate
from job_orchestrator.server.store.sqlite.store import SqliteJobStore, open_store
from job_orchestrator.server.store.sqlite.writer import Writer
from stores import Database, claim


async def test_trap_28_fifty_writers_see_no_locked_database(
    sqlite_store: JobStore, sqlite_path: Path
) -> None:
    async with open_store(sqlite_path) as other:
        await asyncio.gather(
            *(
                each.create(f"{i}-{n}", i, "x")
                for n, each in enumerate((sqlite_store, other))
                for i in range(25)
            ),
        )
        claimed = await asyncio.gather(
            *(claim(s, 5) for s in (sqlite_store, other) for _ in range(6))
        )
    assert Counter(job.id for each in claimed for job in each).most_common(1)[0][1] == 1


async def test_trap_18_failing_statement_leaves_no_half_made_job(
    sqlite_store: JobStore, sqlite_database: Database
) -> None:
    with sqlite_database() as connection:
        connection.execute(
            "CREATE TRIGGER fails BEFORE INSERT ON job_events BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
    with pytest.raises(StoreError, match="no") as failed:
        await sqlite_store.create("u", 1, "x")
    assert isinstance(failed.value.__cause__, sqlite3.IntegrityError)
    with sqlite_database() as connection:
        connection.execute("DROP TRIGGER fails")
        assert connection.execute("SELECT count(*) FROM jobs").fetchone() == (0,)
    assert (await sqlite_store.create("u", 1, "x")).status is JobStatus.QUEUED


async def test_claim_that_fails_half_way_claims_nothing(
    sqlite_store: JobStore, sqlite_database: Database
) -> None:
    await sqlite_store.create("u1", 1, "x")
    await sqlite_store.create("u2", 2, "x")
    with sqlite_database() as connection:
        connection.execute(
            "CREATE TRIGGER fails BEFORE INSERT ON served WHEN new.user_id = 2"
            " BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
    with pytest.raises(StoreError, match="no"):
        await claim(sqlite_store, 2)
    assert [(await sqlite_store.get(i)).status for i in (1, 2)] == [
        JobStatus.QUEUED,
        JobStatus.QUEUED,
    ]
    with sqlite_database() as connection:
        connection.execute("DROP TRIGGER fails")
    assert [job.id for job in await claim(sqlite_store, 2)] == [1, 2]


async def test_failing_statement_of_a_reader_is_an_error_of_the_store(
    sqlite_store: JobStore, sqlite_database: Database
) -> None:
    with sqlite_database() as connection:
        connection.execute("DROP TABLE callbacks")
    with pytest.raises(StoreError, match="no such table: callbacks"):
        await sqlite_store.outbox.due(1)


async def test_full_database_is_reported_as_full_storage(sqlite_path: Path) -> None:
    writing, reading = await connect(sqlite_path), await connect(sqlite_path)
    try:
        await migrate(writing)
        await writing.execute("PRAGMA max_page_count = 1")
        store = SqliteJobStore(Writer(writing), reading, Installation("i"), lambda: 0.0)

        async def fill() -> None:
            for number in range(1000):
                await store.create(f"{number}" * 50, 1, "x")

        with pytest.raises(StorageFull, match="The disk of the database is full"):
            await fill()
    finally:
        await reading.close()
        await writing.close()


async def test_closed_store_raises_an_error_of_the_store(sqlite_path: Path) -> None:
    async with open_store(sqlite_path) as store:
        pass
    with pytest.raises(StoreError, match="The database is closed"):
        await store.get(1)
    with pytest.raises(StoreError, match="The database is closed"):
        await store.create("u", 1, "x")


async def test_database_of_a_later_version_is_refused(
    sqlite_path: Path, sqlite_database: Database
) -> None:
    with sqlite_database() as connection:
        connection.execute("PRAGMA user_version = 1000")
    with pytest.raises(StartupError, match="schema version 1000"):
        async with open_store(sqlite_path):
            pass
