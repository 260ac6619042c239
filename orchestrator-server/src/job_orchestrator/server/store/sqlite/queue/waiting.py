"""Reads the queue: positions of jobs, and the users who wait."""

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence

from job_orchestrator.server.model import Job, Rate
from job_orchestrator.server.store.queue import (
    MAX_AHEAD,
    MAX_WAITING_JOBS,
    Offer,
    Pauses,
    Rehearsal,
    WaitingUser,
)
from job_orchestrator.server.store.sqlite.claims import ALL_WAITING_USERS, rehearse, waiting_user
from job_orchestrator.server.store.sqlite.connection import Connection
from job_orchestrator.server.store.sqlite.queue.rates import tokens_of
from job_orchestrator.server.store.sqlite.rows import IS_READY
from job_orchestrator.server.store.sqlite.writer import Writer

# Two look-ups, because an index can't serve "or".
AHEAD = f"""
SELECT count(*) FROM (
    SELECT 1 FROM jobs WHERE service = :service AND user_id = :user_id AND {IS_READY}
    AND priority > :priority
    UNION ALL
    SELECT 1 FROM jobs WHERE service = :service AND user_id = :user_id AND {IS_READY}
    AND priority = :priority AND id < :id
    LIMIT :limit)
"""  # noqa: S608

PAUSES = "SELECT kind, name FROM pauses"
PAUSE = "INSERT INTO pauses (kind, name, since) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
RESUME = "DELETE FROM pauses WHERE kind = ? AND name = ?"


class SqliteJobQueue:
    """Queue in a SQLite database. The methods are documented in ``JobQueue``."""

    def __init__(
        self, writer: Writer, reader: Connection, now: Callable[[], float], half_life_s: float
    ) -> None:
        self._writer = writer
        self._reader = reader
        self._now = now
        self._half_life_s = half_life_s

    async def ahead(self, job: Job) -> int:
        """See ``JobQueue.ahead``."""
        values = {
            "service": job.service,
            "user_id": job.user_id,
            "priority": job.priority,
            "id": job.id,
            "limit": MAX_AHEAD,
        }
        ((count,),) = await self._reader.rows(AHEAD, values)
        return int(count)

    async def waiting_users(self, service: str) -> Sequence[WaitingUser]:
        """See ``JobQueue.waiting_users``."""
        values = {"service": service, "free": MAX_WAITING_JOBS}
        rows = await self._reader.rows(ALL_WAITING_USERS, values)
        return [waiting_user(row, self._now(), self._half_life_s) for row in rows]

    async def rehearse(self, offers: Mapping[str, Offer], service: str) -> Rehearsal:
        """See ``JobQueue.rehearse``."""
        now = self._now()

        def work(connection: sqlite3.Connection) -> Rehearsal:
            connection.execute("BEGIN")
            try:
                return rehearse(connection, offers, service, now, self._half_life_s)
            finally:
                connection.execute("ROLLBACK")

        return await self._reader.run(work)

    async def tokens(self, user_id: int, rate: Rate) -> float:
        """See ``JobQueue.tokens``."""
        now = self._now()
        return await self._reader.run(lambda connection: tokens_of(connection, user_id, rate, now))

    async def pauses(self) -> Pauses:
        """See ``JobQueue.pauses``."""
        rows = await self._reader.rows(PAUSES)
        return Pauses(
            frozenset(name for kind, name in rows if kind == "service"),
            frozenset(int(name) for kind, name in rows if kind == "user"),
        )

    async def pause(self, *, service: str | None = None, user_id: int | None = None) -> None:
        """See ``JobQueue.pause``."""
        now = self._now()
        for kind, name in _kinds(service, user_id):
            await self._writer.execute(PAUSE, (kind, name, now), durable=True)

    async def resume(self, *, service: str | None = None, user_id: int | None = None) -> None:
        """See ``JobQueue.resume``."""
        for kind, name in _kinds(service, user_id):
            await self._writer.execute(RESUME, (kind, name), durable=True)


def _kinds(service: str | None, user_id: int | None) -> Iterator[tuple[str, str]]:
    if service is not None:
        yield "service", service
    if user_id is not None:
        yield "user", str(user_id)
