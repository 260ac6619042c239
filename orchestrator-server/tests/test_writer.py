"""The one writer: what waits at a moment is one transaction, and one that fails harms no other."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from job_orchestrator.server.store.sqlite.schema import connect
from job_orchestrator.server.store.sqlite.writer import Connection, Work, Writer


@pytest.fixture
async def connection(tmp_path: Path) -> AsyncIterator[Connection]:
    connection = await connect(tmp_path / "db.sqlite")
    await connection.execute("CREATE TABLE t (x INTEGER UNIQUE)")
    yield connection
    await connection.close()


@pytest.fixture
async def statements(connection: Connection) -> list[str]:
    """Everything that the connection executes from now on."""
    seen: list[str] = []
    await connection.set_trace_callback(seen.append)
    return seen


def adding(number: int) -> Work[int]:
    def work(connection: sqlite3.Connection) -> int:
        connection.execute("INSERT INTO t VALUES (?)", (number,))
        return number

    return work


async def test_works_that_wait_share_one_durable_transaction(
    connection: Connection, statements: list[str]
) -> None:
    writer, told = Writer(connection), list[int]()
    works = [writer.run(adding(n), told=told.append, durable=n == 9) for n in range(20)]
    assert await asyncio.gather(*works) == list(range(20))
    assert told == list(range(20)), "in the order of the commits"
    # The first one finds nobody else; all the others have gathered meanwhile.
    assert statements.count("COMMIT") == 2
    assert [s for s in statements if "synchronous" in s] == [
        "PRAGMA synchronous = NORMAL",
        "PRAGMA synchronous = FULL",
    ]


async def test_work_that_fails_harms_no_other(connection: Connection) -> None:
    writer, told = Writer(connection), list[int]()
    works = [writer.run(adding(n), told=told.append) for n in (1, 2, 1, 3)]
    first, second, repeated, third = await asyncio.gather(*works, return_exceptions=True)
    assert (first, second, third) == (1, 2, 3)
    assert isinstance(repeated, sqlite3.IntegrityError)
    assert told == [1, 2, 3]
    assert list(await connection.execute_fetchall("SELECT x FROM t")) == [(1,), (2,), (3,)]


async def test_work_with_patience_goes_with_the_next_one_and_before_it(
    connection: Connection, statements: list[str]
) -> None:
    writer, told = Writer(connection), list[int]()
    patient = asyncio.create_task(writer.run(adding(1), told=told.append, patience_s=60.0))
    await asyncio.sleep(0)
    await writer.run(adding(2), told=told.append)
    assert await patient == 1
    assert told == [1, 2]
    assert statements.count("COMMIT") == 1


async def test_work_with_patience_is_written_when_nobody_else_writes(
    connection: Connection,
) -> None:
    assert await Writer(connection).run(adding(1), told=lambda _: None, patience_s=0.01) == 1


async def test_work_of_a_caller_that_is_cancelled_is_written(
    connection: Connection, tmp_path: Path
) -> None:
    writer = Writer(connection)
    task = asyncio.create_task(writer.run(adding(1), told=lambda _: None))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    def count() -> object:
        with closing(sqlite3.connect(tmp_path / "db.sqlite")) as other:
            return other.execute("SELECT count(*) FROM t").fetchone()

    assert await asyncio.to_thread(count) == (1,)
