"""Group commit: waiting work shares a transaction, and work that fails harms no other."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from job_orchestrator.server.errors import StoreError
from job_orchestrator.server.store.sqlite.connection import Connection, Work, connect
from job_orchestrator.server.store.sqlite.writer import Writer


@pytest.fixture
async def connection(sqlite_path: Path) -> AsyncIterator[Connection]:
    connection = await connect(sqlite_path)
    await connection.execute("CREATE TABLE t (x INTEGER UNIQUE)")
    yield connection
    await connection.close()


@pytest.fixture
async def statements(connection: Connection) -> list[str]:
    """Trace the statements that the connection executes."""
    seen: list[str] = []
    await connection.set_trace_callback(seen.append)
    return seen


def adding(number: int) -> Work[int]:
    def work(connection: sqlite3.Connection) -> int:
        connection.execute("INSERT INTO t VALUES (?)", (number,))
        return number

    return work


async def test_waiting_work_shares_one_durable_transaction(
    connection: Connection, statements: list[str]
) -> None:
    writer, committed = Writer(connection), list[int]()
    works = [writer.run(adding(n), committed=committed.append, durable=n == 9) for n in range(20)]
    assert await asyncio.gather(*works) == list(range(20))
    assert committed == list(range(20)), "in commit order"
    assert statements.count("COMMIT") == 1
    assert [s for s in statements if "synchronous" in s] == ["PRAGMA synchronous = FULL"]


async def test_work_that_is_queued_during_a_commit_shares_the_next_one(
    connection: Connection, statements: list[str]
) -> None:
    writer, others = Writer(connection), list[asyncio.Task[int]]()
    begun = asyncio.Event()

    def first(connection: sqlite3.Connection) -> int:
        begun_soon(begun.set)
        while len(others) < 9:
            time.sleep(0.001)
        return adding(0)(connection)

    begun_soon = asyncio.get_running_loop().call_soon_threadsafe
    running = asyncio.create_task(writer.run(first))
    await begun.wait()
    others += [asyncio.create_task(writer.run(adding(n), durable=n == 9)) for n in range(1, 10)]
    assert await asyncio.gather(running, *others) == list(range(10))
    assert statements.count("COMMIT") == 2
    assert [s for s in statements if "synchronous" in s] == [
        "PRAGMA synchronous = NORMAL",
        "PRAGMA synchronous = FULL",
    ]


async def test_failing_work_harms_no_other(connection: Connection) -> None:
    writer, committed = Writer(connection), list[int]()
    works = [writer.run(adding(n), committed=committed.append) for n in (1, 2, 1, 3)]
    first, second, repeated, third = await asyncio.gather(*works, return_exceptions=True)
    assert (first, second, third) == (1, 2, 3)
    assert isinstance(repeated, StoreError)
    assert isinstance(repeated.__cause__, sqlite3.IntegrityError)
    assert committed == [1, 2, 3]
    assert await connection.rows("SELECT x FROM t") == [(1,), (2,), (3,)]


async def test_deferred_work_joins_the_next_transaction_and_precedes_its_work(
    connection: Connection, statements: list[str]
) -> None:
    writer, committed = Writer(connection), list[int]()
    deferred = asyncio.create_task(
        writer.run(adding(1), committed=committed.append, max_delay_s=60.0)
    )
    await asyncio.sleep(0)
    await writer.run(adding(2), committed=committed.append)
    assert await deferred == 1
    assert committed == [1, 2]
    assert statements.count("COMMIT") == 1


async def test_deferred_work_is_written_after_its_delay(connection: Connection) -> None:
    assert await Writer(connection).run(adding(1), max_delay_s=0.01) == 1


async def test_work_of_a_cancelled_caller_is_written(
    connection: Connection, sqlite_path: Path
) -> None:
    writer = Writer(connection)
    task = asyncio.create_task(writer.run(adding(1)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    def count() -> object:
        with closing(sqlite3.connect(sqlite_path)) as other:
            return other.execute("SELECT count(*) FROM t").fetchone()

    assert await asyncio.to_thread(count) == (1,)
