"""The one writer of the database: whatever waits to be written at a moment is one transaction.

A commit costs the same however many changes it holds, so many uploads at once share the flush to
the disk that makes each of them durable (group commit).
"""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import aiosqlite

from job_orchestrator.common.runtime.fault_injection import Point, reach
from job_orchestrator.common.runtime.threads import PendingResult

T = TypeVar("T")

Work = Callable[[sqlite3.Connection], T]
"""Statements that belong together. Runs in the connection's thread, within a transaction."""


class Connection(aiosqlite.Connection):
    """A connection that runs a whole function in its thread: one hop for many statements."""

    def begin(self, work: Work[T]) -> "asyncio.Future[T]":
        """Run ``work`` on the connection; its result is to come."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        # Private; the version range of aiosqlite says so too.
        if not self._running or self._connection is None:
            future.set_exception(ValueError("The database is closed"))
        else:
            self._tx.put_nowait((future, partial(work, self._connection)))
        return future

    async def run(self, work: Work[T]) -> T:
        """Run ``work`` on the connection, and return what it returns."""
        return await self.begin(work)


@dataclass(eq=False)
class _Entry(Generic[T]):
    """Something to write. ``told`` is called with its result after the commit. One that is
    ``patient`` doesn't call for a transaction of its own."""

    work: Work[T]
    told: Callable[[T], None]
    durable: bool
    patient: bool
    pending: PendingResult[T]

    def settle(self, outcome: T | Exception) -> None:
        if isinstance(outcome, Exception):
            self.pending.fail(outcome)
        else:
            try:
                self.told(outcome)
            except Exception as error:
                self.pending.fail(error)
            else:
                self.pending.succeed(outcome)


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
        self._writing = False
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
        loop = asyncio.get_running_loop()
        entry = _Entry(work, told, durable, patience_s > 0, PendingResult(loop))
        self._waiting.append(entry)
        if entry.patient:
            loop.call_later(patience_s, self._hurry, entry)
        else:
            self._write()
        return await entry.pending.wait()

    def _hurry(self, entry: _Entry[Any]) -> None:
        entry.patient = False
        self._write()

    def _write(self) -> None:
        """Write what waits, unless that comes next anyway, or has time."""
        if self._writing or all(entry.patient for entry in self._waiting):
            return
        self._writing = True
        batch, self._waiting = self._waiting, []
        began = time.perf_counter()

        def written(future: "asyncio.Future[list[Any]]") -> None:
            self._wrote(time.perf_counter() - began)
            self._writing = False
            # Whoever came meanwhile shares the next transaction.
            self._write()
            error = future.exception()
            outcomes = future.result() if error is None else [error] * len(batch)
            for entry, outcome in zip(batch, outcomes, strict=True):
                entry.settle(outcome)

        self._connection.begin(lambda c: self._commit(c, batch)).add_done_callback(written)

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
