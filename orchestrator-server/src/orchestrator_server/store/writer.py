"""The one writer of the database: whatever waits to be written at a moment is one transaction.

A commit costs the same however many changes it holds, so many uploads at once share the flush to
the disk that makes each of them durable (group commit).
"""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import aiosqlite

from orchestrator_common.faults import Point, reach
from orchestrator_common.threads import to_end

T = TypeVar("T")

Work = Callable[[sqlite3.Connection], T]
"""Statements that belong together. Runs in the connection's thread, within a transaction."""


class Connection(aiosqlite.Connection):
    """A connection that runs a whole function in its thread: one hop for many statements."""

    async def run(self, work: Work[T]) -> T:
        """Run ``work`` on the connection, and return what it returns."""
        # Protected, but not public by any other name; the version range of aiosqlite says so too.
        result: T = await self._execute(work, self._conn)  # type: ignore[no-untyped-call]
        return result


@dataclass(eq=False)
class _Entry(Generic[T]):
    """Something to write. ``told`` is called with its result after the commit."""

    work: Work[T]
    told: Callable[[T], None]
    durable: bool
    done: "asyncio.Future[T]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def settle(self, outcome: T | Exception) -> None:
        if isinstance(outcome, Exception):
            self.done.set_exception(outcome)
        else:
            self.told(outcome)
            self.done.set_result(outcome)


class Writer:
    """Writes, in the order of the calls.

    Each work of a transaction that fails is tried again in one of its own, so that what is wrong
    with one reaches its caller alone. ``wrote`` is called with the seconds that each one took.
    """

    def __init__(
        self, connection: Connection, wrote: Callable[[float], None] = lambda _: None
    ) -> None:
        self._connection = connection
        self._wrote = wrote
        self._waiting: list[_Entry[Any]] = []
        self._turn = asyncio.Lock()
        self._durable: bool | None = None

    async def run(
        self,
        work: Work[T],
        *,
        told: Callable[[T], None],
        durable: bool = False,
        patience_s: float = 0.0,
    ) -> T:
        """Commit what ``work`` does, to its end even if the caller is cancelled meanwhile.

        ``told`` is called in the order of the commits. With ``durable`` it survives a power cut;
        else it may be lost by one, but not by a crash of this process. With ``patience_s`` it may
        wait so long for the transaction of somebody else.
        """
        return await to_end(self._run(_Entry(work, told, durable), patience_s))

    async def _run(self, entry: _Entry[T], patience_s: float) -> T:
        self._waiting.append(entry)
        if patience_s:
            await asyncio.wait({entry.done}, timeout=patience_s)
        # Whoever gets the turn writes for all who wait for it.
        async with self._turn:
            if not entry.done.done():
                batch, self._waiting = self._waiting, []
                began = time.perf_counter()
                outcomes = await self._connection.run(lambda c: self._commit(c, batch))
                self._wrote(time.perf_counter() - began)
                for each, outcome in zip(batch, outcomes, strict=True):
                    each.settle(outcome)
        return await entry.done

    def _commit(self, connection: sqlite3.Connection, batch: Sequence[_Entry[Any]]) -> list[Any]:
        """The result, or the error, of each entry."""
        try:
            return self._in_one_transaction(connection, batch)
        except Exception as error:
            if len(batch) == 1:
                return [error]
        return [self._commit(connection, [entry])[0] for entry in batch]

    def _in_one_transaction(
        self, connection: sqlite3.Connection, batch: Sequence[_Entry[Any]]
    ) -> list[Any]:
        durable = any(entry.durable for entry in batch)
        if durable is not self._durable:
            connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._durable = durable
        # IMMEDIATE: nobody else writes between what is read here and what is written.
        connection.execute("BEGIN IMMEDIATE")
        try:
            results = [entry.work(connection) for entry in batch]
            reach(Point.SERVER_BEFORE_COMMIT)
            connection.execute("COMMIT")
        except BaseException:
            # SQLite rolls back by itself on some errors (full disk, I/O).
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        reach(Point.SERVER_COMMITTED)
        return results
