"""The payloads' database: SQLite in memory, because the server keeps the history.

Every change of state is one compare-and-set statement. Statements run in the event loop: none waits
for a disk, each is bounded by an index or a limit, and takes microseconds. Methods are coroutines
all the same, as those of any database.
"""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import fields, replace
from functools import cache
from typing import Any

from job_orchestrator.client.errors import PayloadNotFound
from job_orchestrator.client.model import PayloadRow
from job_orchestrator.common.runtime import fault_injection as faults
from job_orchestrator.common.status import (
    FINAL_PAYLOAD,
    PayloadStatus,
    TransitionRefused,
    origins,
)

DatabaseError = sqlite3.Error
"""What every call of the store may raise."""


_FIELDS = tuple(field.name for field in fields(PayloadRow))
COLUMNS = ", ".join(_FIELDS)

SCHEMA = """
CREATE TABLE payloads (
    id INTEGER PRIMARY KEY,
    uuid TEXT NOT NULL,
    key TEXT UNIQUE,
    refusal TEXT NOT NULL,
    time_limit_s REAL,
    status TEXT NOT NULL,
    killed INTEGER NOT NULL DEFAULT 0,
    exit_code INTEGER,
    message TEXT NOT NULL DEFAULT '',
    ended_at REAL
) STRICT;
CREATE INDEX payloads_prepared ON payloads (id) WHERE status = 'Prepared';
CREATE INDEX payloads_running ON payloads (id) WHERE status = 'Running';
CREATE INDEX payloads_ended ON payloads (ended_at) WHERE ended_at IS NOT NULL;
"""

START = """
UPDATE payloads SET status = 'Running'
WHERE id IN (SELECT id FROM payloads WHERE status = 'Prepared' ORDER BY id LIMIT ?)
"""
ENDED_BEFORE = f"""
SELECT {COLUMNS} FROM payloads WHERE ended_at < ? AND status <> 'Cleaned' ORDER BY ended_at LIMIT ?
"""  # noqa: S608


FORGOTTEN_AT_ONCE = 200
FORGET = f"""
DELETE FROM payloads WHERE id IN (
    SELECT id FROM payloads WHERE ended_at < ? AND status = 'Cleaned' LIMIT ?)
RETURNING {COLUMNS}
"""  # noqa: S608


@cache
def _listed(statuses: frozenset[PayloadStatus]) -> str:
    return ", ".join(f"'{status}'" for status in sorted(statuses))


class PayloadStore:
    """The payloads. Listeners are told of every payload whose state changed."""

    def __init__(self, connection: sqlite3.Connection, now: Callable[[], float]) -> None:
        self._connection = connection
        self._now = now
        self._listeners: list[Callable[[PayloadRow], None]] = []
        self._lost: set[int] = set()

    def subscribe(self, listener: Callable[[PayloadRow], None]) -> None:
        """Call ``listener`` with every payload that is new or changed; it must not block."""
        self._listeners.append(listener)

    async def add(
        self,
        payload_id: int,
        uuid: str,
        key: str | None,
        refusal: str = "",
        time_limit_s: float | None = None,
    ) -> PayloadRow | None:
        """Add a Prepared payload; None if there is one with this key already."""
        rows = await self._execute(
            f"""INSERT INTO payloads (id, uuid, key, refusal, time_limit_s, status)
                VALUES (?, ?, ?, ?, ?, 'Prepared')
                ON CONFLICT (key) DO NOTHING RETURNING {COLUMNS}""",  # noqa: S608
            (payload_id, uuid, key, refusal, time_limit_s),
        )
        return self._tell(rows[0]) if rows else None

    async def forbid(self, payload_id: int, uuid: str, key: str) -> None:
        """Let a payload of ``key`` that has not arrived yet be Killed, so that it never runs.

        It has no files. If there is one with this key already, nothing happens.
        """
        await self._execute(
            f"""INSERT INTO payloads (id, uuid, key, refusal, status, killed, message, ended_at)
                VALUES (?, ?, ?, '', 'Killed', 1, 'Terminated before it arrived', ?)
                ON CONFLICT (key) DO NOTHING RETURNING {COLUMNS}""",  # noqa: S608
            (payload_id, uuid, key, self._now()),
        )

    async def get(self, payload_id: int) -> PayloadRow:
        """Return the payload. Raises ``PayloadNotFound``."""
        rows = await self._execute(
            f"SELECT {COLUMNS} FROM payloads WHERE id = ?",  # noqa: S608
            (payload_id,),
        )
        if not rows:
            self._lost.discard(payload_id)  # now its server knows
            raise PayloadNotFound(payload_id)
        return rows[0]

    async def by_key(self, key: str) -> PayloadRow | None:
        """The payload that was submitted with this key, if there is one."""
        rows = await self._execute(
            f"SELECT {COLUMNS} FROM payloads WHERE key = ?",  # noqa: S608
            (key,),
        )
        return rows[0] if rows else None

    async def start(self, limit: int) -> Sequence[PayloadRow]:
        """Make at most ``limit`` Prepared payloads Running, the oldest ones, and return them.

        Whoever gets one is the only one to run it.
        """
        rows = await self._execute(f"{START} RETURNING {COLUMNS}", (limit,))
        return [self._tell(row) for row in sorted(rows, key=lambda row: row.id)]

    async def running(self) -> Sequence[PayloadRow]:
        """All payloads that are Running."""
        return await self._execute(
            f"SELECT {COLUMNS} FROM payloads WHERE status = 'Running'",  # noqa: S608
            (),
        )

    async def drop(self, payload_id: int) -> None:
        """Take back a payload that was just added and has not started."""
        await self._execute(
            "DELETE FROM payloads WHERE id = ? AND status = 'Prepared'", (payload_id,)
        )

    async def request_kill(self, payload_id: int) -> PayloadRow | None:
        """Mark a payload to be ended: at once Killed if it hasn't started, so that it never does.

        Returns it as it then is; None if there was nothing to end any more.
        """
        rows = await self._execute(
            f"""UPDATE payloads SET killed = 1,
                    message = CASE status WHEN 'Prepared' THEN 'Terminated before it started'
                        ELSE message END,
                    ended_at = CASE status WHEN 'Prepared' THEN :now ELSE ended_at END,
                    status = CASE status WHEN 'Prepared' THEN 'Killed' ELSE status END
                WHERE id = :id AND status IN ({_listed(origins(PayloadStatus.KILLED))})
                RETURNING {COLUMNS}""",  # noqa: S608
            {"id": payload_id, "now": self._now()},
        )
        return self._tell(rows[0]) if rows else None

    async def finish(
        self, payload_id: int, status: PayloadStatus, message: str, exit_code: int | None = None
    ) -> PayloadRow:
        """Bring a payload to another state. Raises ``TransitionRefused``, ``PayloadNotFound``."""
        rows = await self._execute(
            f"""UPDATE payloads SET status = :status, message = :message,
                    exit_code = coalesce(:exit_code, exit_code),
                    ended_at = coalesce(ended_at, :now)
                WHERE id = :id AND status IN ({_listed(origins(status))})
                RETURNING {COLUMNS}""",  # noqa: S608
            {
                "id": payload_id,
                "status": status,
                "message": message,
                "exit_code": exit_code,
                "now": self._now(),
            },
        )
        if not rows:
            current = (await self.get(payload_id)).status
            raise TransitionRefused(f"Payload {payload_id}", current, status)
        return self._tell(rows[0])

    async def lose(self, *statuses: PayloadStatus) -> None:
        """Forget the payloads of these states: they are to be run elsewhere.

        Listeners are told that they are Cleaned: whoever asks finds that there is no such payload.
        """
        rows = await self._execute(
            f"DELETE FROM payloads WHERE status IN ({_listed(frozenset(statuses))})"  # noqa: S608
            f" RETURNING {COLUMNS}",
            (),
        )
        for row in rows:
            self._lost.add(row.id)
            self._tell(replace(row, status=PayloadStatus.CLEANED, message="The client stops"))

    async def wanted(self) -> int:
        """How many payloads a server has still to ask for: results not fetched, losses not seen."""
        ((kept,),) = self._connection.execute(
            "SELECT count(*) FROM payloads WHERE ended_at IS NOT NULL AND status <> 'Cleaned'"
        )
        return int(kept) + len(self._lost)

    async def discard(self, payload_ids: Sequence[int]) -> Sequence[PayloadRow]:
        """Make those of the payloads Cleaned that have ended; return them."""
        marks = ", ".join("?" for _ in payload_ids)
        rows = await self._execute(
            f"""UPDATE payloads SET status = 'Cleaned' WHERE id IN ({marks})
                AND status IN ({_listed(origins(PayloadStatus.CLEANED))})
                RETURNING {COLUMNS}""",  # noqa: S608
            payload_ids,
        )
        return [self._tell(row) for row in rows]

    async def counts(self) -> tuple[int, int]:
        """How many payloads run, and how many wait for a slot."""
        # Two counts, so that each can use its index: the table holds two days of ended payloads.
        ((running, waiting),) = self._connection.execute(
            "SELECT (SELECT count(*) FROM payloads WHERE status = 'Running'),"
            " (SELECT count(*) FROM payloads WHERE status = 'Prepared')"
        )
        return int(running), int(waiting)

    async def ended_before(self, seconds_ago: float, limit: int) -> Sequence[PayloadRow]:
        """Payloads that ended so long ago and still have their files, the oldest first."""
        return await self._execute(ENDED_BEFORE, (self._now() - seconds_ago, limit))

    async def forget_cleaned(self, seconds_ago: float) -> None:
        """Drop the rows of payloads without files that ended so long ago."""
        values = (self._now() - seconds_ago, FORGOTTEN_AT_ONCE)
        forgotten = FORGOTTEN_AT_ONCE
        while forgotten == FORGOTTEN_AT_ONCE:
            forgotten = len(await self._execute(FORGET, values))
            await asyncio.sleep(0)  # the loop has other things to do

    async def _execute(self, statement: str, values: Any) -> list[PayloadRow]:
        return [_row(row) for row in self._connection.execute(statement, values)]

    def _tell(self, row: PayloadRow) -> PayloadRow:
        for listener in self._listeners:
            listener(row)
        return row


def _row(row: Any) -> PayloadRow:
    values = dict(zip(_FIELDS, row, strict=True))
    values["status"] = PayloadStatus(values["status"])
    values["killed"] = bool(values["killed"])
    return PayloadRow(**values)


def has_ended(row: PayloadRow) -> bool:
    """Whether nothing happens to a payload any more."""
    return row.status in FINAL_PAYLOAD or row.status is PayloadStatus.CLEANED


@asynccontextmanager
async def open_payloads(now: Callable[[], float] = time.time) -> AsyncIterator[PayloadStore]:
    """Open the database. It is gone when its one connection is closed."""
    with contextlib.closing(
        sqlite3.connect(":memory:", isolation_level=None, factory=faults.database_class())
    ) as connection:
        connection.executescript(SCHEMA)
        yield PayloadStore(connection, now)
