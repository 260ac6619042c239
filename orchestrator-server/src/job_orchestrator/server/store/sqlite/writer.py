"""Group commit: changes that wait at the same time share one transaction.

A commit costs the same however many changes it holds. Concurrent uploads therefore share the flush
to the disk that makes each of them durable. A transaction begins at the end of the pass of the
event loop that asks for it, so that a job and its claim share one as well.
"""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from job_orchestrator.common.runtime.fault_injection import Point, reach
from job_orchestrator.common.runtime.threads import PendingResult
from job_orchestrator.server.store.sqlite.connection import (
    Connection,
    Values,
    Work,
    store_error,
)

T = TypeVar("T")


def _ignore(result: object) -> None:
    pass


@dataclass(eq=False)
class _Entry(Generic[T]):
    """Work that waits for a transaction. A ``deferred`` entry does not start one by itself."""

    work: Work[T]
    committed: Callable[[T], None]
    durable: bool
    deferred: bool
    pending: PendingResult[T]

    def settle(self, outcome: T | Exception) -> None:
        if isinstance(outcome, Exception):
            self.pending.fail(outcome)
        else:
            try:
                self.committed(outcome)
            except Exception as error:
                self.pending.fail(error)
            else:
                self.pending.succeed(outcome)


class Writer:
    """Writes to the database, in the order of the calls.

    If a transaction fails, each of its works is repeated in a transaction of its own, so that an
    error reaches only the caller of the work that causes it. ``wrote`` is called with the duration
    of each write in seconds.
    """

    def __init__(
        self, connection: Connection, wrote: Callable[[float], None] = lambda _: None
    ) -> None:
        self._connection = connection
        self._wrote = wrote
        self._waiting: list[_Entry[Any]] = []
        self._scheduled = False
        self._writing = False
        self._durable: bool | None = None

    async def run(
        self,
        work: Work[T],
        *,
        committed: Callable[[T], None] = _ignore,
        durable: bool = False,
        max_delay_s: float = 0.0,
    ) -> T:
        """Commit what ``work`` writes and return its result. ``work`` may run more than once.

        The commit is completed even if the caller is cancelled. ``committed`` is called with the
        result, in commit order. A durable commit survives a power cut, others only a crash of this
        process. With ``max_delay_s``, the work may wait that long to join another transaction.
        """
        loop = asyncio.get_running_loop()
        entry = _Entry(work, committed, durable, max_delay_s > 0, PendingResult(loop))
        self._waiting.append(entry)
        if entry.deferred:
            loop.call_later(max_delay_s, self._end_delay, entry)
        else:
            self._schedule()
        try:
            return await entry.pending.wait()
        except sqlite3.Error as error:
            raise store_error(error) from error

    async def execute(self, statement: str, values: Values, *, durable: bool = False) -> None:
        """Commit one statement."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(statement, values)

        await self.run(work, durable=durable)

    def _end_delay(self, entry: _Entry[Any]) -> None:
        entry.deferred = False
        self._schedule()

    def _schedule(self) -> None:
        """Begin a transaction after all callbacks that are ready now, unless one is running."""
        if not (self._writing or self._scheduled):
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._write)

    def _write(self) -> None:
        """Begin a transaction with all that waits, unless one is running or all is deferred."""
        self._scheduled = False
        if self._writing or all(entry.deferred for entry in self._waiting):
            return
        self._writing = True
        batch, self._waiting = self._waiting, []
        began = time.perf_counter()

        def written(future: "asyncio.Future[list[Any]]") -> None:
            self._wrote(time.perf_counter() - began)
            self._writing = False
            # Work that was queued during this commit goes into the next transaction, which begins
            # before the outcomes of this one are handled.
            self._write()
            error = future.exception()
            outcomes = future.result() if error is None else [error] * len(batch)
            for entry, outcome in zip(batch, outcomes, strict=True):
                entry.settle(outcome)

        self._connection.begin(lambda c: self._commit(c, batch)).add_done_callback(written)

    def _commit(self, connection: sqlite3.Connection, batch: Sequence[_Entry[Any]]) -> list[Any]:
        """Return the result, or the error, of each entry."""
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
        # IMMEDIATE: no other process writes between the reads and the writes of the works.
        connection.execute("BEGIN IMMEDIATE")
        try:
            results = [entry.work(connection) for entry in batch]
            reach(Point.SERVER_BEFORE_COMMIT)
            connection.execute("COMMIT")
        except BaseException:
            # On some errors (full disk, I/O) SQLite has already rolled back.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        reach(Point.SERVER_COMMITTED)
        return results
