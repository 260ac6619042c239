"""Database of the payloads: SQLite in memory, because the server keeps the history.

Every change of state is one compare-and-set statement. Statements run in the event loop: none waits
for a disk, and an index or a limit bounds each, so that it takes microseconds. The methods are
coroutines nevertheless, so that callers do not depend on this.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import astuple, fields, replace
from functools import cache
from typing import Any
from uuid import uuid4

from job_orchestrator.client.errors import PayloadGivenBack, PayloadNotFound
from job_orchestrator.client.model import PayloadRow
from job_orchestrator.client.payloads.returned import ReturnedPayloads
from job_orchestrator.common.messages.resources import NOTHING, Resources
from job_orchestrator.common.runtime.clock import steady_time
from job_orchestrator.common.runtime.fault_injection import database_class
from job_orchestrator.common.status import PayloadStatus, TransitionRefused, origins

Subscriber = Callable[[PayloadRow], None]
KILLED = PayloadStatus.KILLED

COLUMNS = ", ".join(field.name for field in fields(PayloadRow))

_STATUSES = {str(status): status for status in PayloadStatus}

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
    ended_at REAL,
    packing INTEGER NOT NULL DEFAULT 0,
    results_sha256 BLOB,
    cpus REAL NOT NULL DEFAULT 0, memory_bytes INT NOT NULL DEFAULT 0, gpus INT NOT NULL DEFAULT 0,
    run_s REAL,
    queued INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX payloads_prepared ON payloads (id) WHERE status = 'Prepared';
CREATE INDEX payloads_running ON payloads (id) WHERE status = 'Running';
CREATE INDEX payloads_ended ON payloads (ended_at) WHERE ended_at IS NOT NULL;
"""

START = f"""
UPDATE payloads SET status = 'Running', queued = ?
WHERE id IN (SELECT id FROM payloads WHERE status = 'Prepared' ORDER BY id LIMIT ?)
RETURNING {COLUMNS}
"""  # noqa: S608
WANTED = (
    "SELECT cpus, memory_bytes, gpus FROM payloads WHERE status = 'Prepared' ORDER BY id LIMIT ?"
)
ENDED_BEFORE = f"""
SELECT {COLUMNS} FROM payloads WHERE ended_at < ? AND status <> 'Cleaned' ORDER BY ended_at LIMIT ?
"""  # noqa: S608

KEPT = f"SELECT {COLUMNS} FROM payloads WHERE id > ? AND status <> 'Cleaned' ORDER BY id LIMIT ?"  # noqa: S608
KEPT_BATCH = 500

# Each count can use its index; the table also holds payloads that ended within MAX_AGE.
COUNTS = """
SELECT (SELECT count(*) FROM payloads WHERE status = 'Running' AND NOT packing),
    (SELECT count(*) FROM payloads WHERE status = 'Prepared')
"""

DELETE_BATCH = 200
DELETE_CLEANED = f"""
DELETE FROM payloads WHERE id IN (
    SELECT id FROM payloads WHERE ended_at < ? AND status = 'Cleaned' LIMIT ?)
RETURNING {COLUMNS}
"""  # noqa: S608


class StoreError(Exception):
    """A statement failed. It may have had its effect nevertheless."""


@cache
def _listed(statuses: frozenset[PayloadStatus]) -> str:
    return ", ".join(f"'{status}'" for status in sorted(statuses))


class PayloadStore:
    """Store of the payloads. It notifies its subscribers of each change of a payload.

    Every method that accesses the database may raise ``StoreError``.
    """

    def __init__(self, connection: sqlite3.Connection, now: Callable[[], float]) -> None:
        self._connection = connection
        self._now = now
        self._any_sized = False
        self._subscribers: list[Subscriber] = []
        self._given_back: set[int] = set()
        self._returned = ReturnedPayloads()

    def subscribe(self, subscriber: Subscriber) -> None:
        """Call ``subscriber`` with every payload that is added or changed. It must not block."""
        self._subscribers.append(subscriber)

    async def add(
        self,
        payload_id: int,
        uuid: str,
        key: str | None,
        refusal: str = "",
        time_limit_s: float | None = None,
        wanted: Resources = NOTHING,
    ) -> PayloadRow | None:
        """Add a Prepared payload; None if there is a payload with this key already."""
        self._any_sized |= bool(wanted)
        values = (payload_id, uuid, key, refusal, time_limit_s, *wanted.amounts())
        rows = self._rows(
            f"""INSERT INTO payloads
                (id, uuid, key, refusal, time_limit_s, cpus, memory_bytes, gpus, status)
                VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'Prepared')
                ON CONFLICT (key) DO NOTHING RETURNING {COLUMNS}""",  # noqa: S608
            values,
        )
        return self._notify(rows[0]) if rows else None

    async def add_ended(
        self, payload_id: int, key: str | None, status: PayloadStatus, message: str
    ) -> None:
        """Add a payload without files that never runs here; no effect if id or key exist already.

        Subscribers are not notified: nothing has happened to a script.
        """
        self._rows(
            f"""INSERT INTO payloads (id, uuid, key, refusal, status, killed, message, ended_at)
                VALUES (?, ?, ?, '', ?, ?, ?, ?) ON CONFLICT DO NOTHING RETURNING {COLUMNS}""",  # noqa: S608
            (payload_id, str(uuid4()), key, status, status is KILLED, message, self._now()),
        )

    async def get(self, payload_id: int) -> PayloadRow:
        """Return the payload. Raises ``PayloadNotFound``."""
        rows = self._rows(
            f"SELECT {COLUMNS} FROM payloads WHERE id = ?",  # noqa: S608
            (payload_id,),
        )
        if not rows:
            self._given_back.discard(payload_id)  # its server has seen the loss
            if self._returned.never_started(payload_id):
                raise PayloadGivenBack(payload_id)
            raise PayloadNotFound(payload_id)
        return rows[0]

    async def by_key(self, key: str) -> PayloadRow | None:
        """Return the payload that was submitted with this key; None if there is none."""
        rows = self._rows(
            f"SELECT {COLUMNS} FROM payloads WHERE key = ?",  # noqa: S608
            (key,),
        )
        return rows[0] if rows else None

    async def next_wanted(self, limit: int) -> Sequence[Resources]:
        """Return what the oldest Prepared payloads ask for; nothing if none ever did."""
        rows = self._execute(WANTED, (limit,)) if self._any_sized else ()
        return [Resources(*row) for row in rows]

    async def start(self, limit: int, *, queued: bool = False) -> Sequence[PayloadRow]:
        """Change at most ``limit`` Prepared payloads, the oldest, to Running, and return them.

        Each payload is returned by one call only; the caller must run it. With ``queued`` they
        wait in the queue of the executor until ``begin``.
        """
        rows = self._rows(START, (queued, limit))
        return [self._notify(row) for row in sorted(rows, key=lambda row: row.id)]

    async def begin(self, payload_id: int) -> None:
        """Record that the script of a queued payload has begun."""
        self._change_running("queued = 0, message = ''", "queued", id=payload_id)

    async def restore(self, rows: Sequence[PayloadRow]) -> None:
        """Add the payloads of a previous process of jo-client; subscribers are not notified."""
        marks = ", ".join("?" for _ in fields(PayloadRow))
        for row in rows:
            self._any_sized |= bool(row.wanted)
            self._execute(f"INSERT INTO payloads ({COLUMNS}) VALUES ({marks})", astuple(row))  # noqa: S608

    async def running(self) -> Sequence[PayloadRow]:
        """Return all Running payloads."""
        return self._rows(
            f"SELECT {COLUMNS} FROM payloads WHERE status = 'Running'",  # noqa: S608
            (),
        )

    async def drop(self, payload_id: int) -> None:
        """Remove a payload that was just added and has not started."""
        self._rows("DELETE FROM payloads WHERE id = ? AND status = 'Prepared'", (payload_id,))

    async def request_kill(self, payload_id: int) -> PayloadRow | None:
        """Mark a payload as killed; one that has not started becomes Killed and never starts.

        Returns the payload after the change; None if it had ended already, or does not exist.
        """
        rows = self._rows(
            f"""UPDATE payloads SET killed = 1,
                    message = CASE status WHEN 'Prepared' THEN 'Terminated before it started'
                        ELSE message END,
                    ended_at = CASE status WHEN 'Prepared' THEN :now ELSE ended_at END,
                    status = CASE status WHEN 'Prepared' THEN 'Killed' ELSE status END
                WHERE id = :id AND status IN ({_listed(origins(PayloadStatus.KILLED))})
                RETURNING {COLUMNS}""",  # noqa: S608
            {"id": payload_id, "now": self._now()},
        )
        return self._notify(rows[0]) if rows else None

    async def explain(self, payload_id: int, message: str) -> None:
        """Set the message of a payload, if it is Running."""
        self._change_running("message = :message", "1", id=payload_id, message=message)

    async def mark_packing(self, payload_id: int) -> None:
        """Record that the script of a Running payload has ended, and its results are packed."""
        self._change_running("packing = 1", "NOT packing", id=payload_id)

    async def finish(
        self,
        payload_id: int,
        status: PayloadStatus,
        message: str,
        exit_code: int | None = None,
        results_sha256: bytes | None = None,
        run_s: float | None = None,
    ) -> PayloadRow:
        """Store how a payload ended. Raises ``TransitionRefused``, ``PayloadNotFound``."""
        rows = self._rows(
            f"""UPDATE payloads SET status = :status, message = :message,
                    exit_code = coalesce(:exit_code, exit_code), run_s = coalesce(:run_s, run_s),
                    results_sha256 = coalesce(:results_sha256, results_sha256),
                    ended_at = coalesce(ended_at, :now)
                WHERE id = :id AND status IN ({_listed(origins(status))})
                RETURNING {COLUMNS}""",  # noqa: S608
            {
                "id": payload_id,
                "status": status,
                "message": message,
                "exit_code": exit_code,
                "results_sha256": results_sha256,
                "run_s": run_s,
                "now": self._now(),
            },
        )
        if not rows:
            current = (await self.get(payload_id)).status
            raise TransitionRefused(f"Payload {payload_id}", current, status)
        return self._notify(rows[0])

    async def give_back(self, *statuses: PayloadStatus) -> None:
        """Forget the payloads in these states, so that their servers run the jobs elsewhere.

        Subscribers are notified that the payloads are Cleaned. A server that asks for one of them
        learns that it does not exist.
        """
        rows = self._rows(
            f"DELETE FROM payloads WHERE status IN ({_listed(frozenset(statuses))})"  # noqa: S608
            f" RETURNING {COLUMNS}",
            (),
        )
        self._notify_given_back(rows, "The client stops")

    async def recall(self, key: str) -> PayloadRow | None:
        """Forget the Prepared payload of ``key``, which never runs then, and return it.

        Returns None if there is no such payload.
        """
        rows = self._rows(
            f"DELETE FROM payloads WHERE key = ? AND status = 'Prepared' RETURNING {COLUMNS}",  # noqa: S608
            (key,),
        )
        for row in rows:
            self._returned.add(row, started=False)
            return row
        return None

    def was_returned(self, key: str) -> bool:
        """Return whether the payload of ``key`` was recalled or given back."""
        return self._returned.has_key(key)

    async def give_back_lost(
        self, payload_id: int, reason: str, *, costs_attempt: bool = True
    ) -> None:
        """Forget a Running payload whose run was lost, so that its server runs the job again."""
        rows = self._rows(
            f"DELETE FROM payloads WHERE id = ? AND status = 'Running' RETURNING {COLUMNS}",  # noqa: S608
            (payload_id,),
        )
        self._notify_given_back(rows, reason, started=costs_attempt)

    async def prepared(self) -> Sequence[PayloadRow]:
        """Return all payloads that wait for a slot."""
        return self._rows(
            f"SELECT {COLUMNS} FROM payloads WHERE status = 'Prepared'",  # noqa: S608
            (),
        )

    async def give_back_unstarted(self, payload_id: int, reason: str) -> None:
        """Forget a payload whose script has not begun, so that its job runs elsewhere."""
        rows = self._rows(
            f"DELETE FROM payloads WHERE id = ? AND status IN ('Prepared', 'Running')"  # noqa: S608
            f" RETURNING {COLUMNS}",
            (payload_id,),
        )
        self._notify_given_back(rows, reason, started=False)

    async def unseen_count(self) -> int:
        """Count what servers must still ask for: results not fetched, and losses not seen."""
        ((kept,),) = self._execute(
            "SELECT count(*) FROM payloads WHERE ended_at IS NOT NULL AND status <> 'Cleaned'", ()
        )
        return int(kept) + len(self._given_back)

    async def mark_cleaned(self, payload_ids: Sequence[int]) -> Sequence[PayloadRow]:
        """Change those of the payloads that have ended to Cleaned, and return them."""
        marks = ", ".join("?" for _ in payload_ids)
        rows = self._rows(
            f"""UPDATE payloads SET status = 'Cleaned' WHERE id IN ({marks})
                AND status IN ({_listed(origins(PayloadStatus.CLEANED))})
                RETURNING {COLUMNS}""",  # noqa: S608
            payload_ids,
        )
        return [self._notify(row) for row in rows]

    async def counts(self) -> tuple[int, int]:
        """Count the payloads that run, and those that wait for a slot."""
        ((running, waiting),) = self._execute(COUNTS, ())
        return int(running), int(waiting)

    async def ended_before(self, seconds_ago: float, limit: int) -> Sequence[PayloadRow]:
        """Return payloads that ended so long ago and still have their files, the oldest first."""
        return self._rows(ENDED_BEFORE, (self._now() - seconds_ago, limit))

    async def has_files(self, uuid: str) -> bool:
        """Return whether there is a payload with this folder, and not Cleaned."""
        query = "SELECT 1 FROM payloads WHERE uuid = ? AND status <> 'Cleaned'"
        return bool(self._execute(query, (uuid,)))

    async def kept(self) -> Sequence[PayloadRow]:
        """Return all payloads whose files were not removed, by id.

        The event loop gets control between batches, so payloads may come and go during the call.
        """
        found: list[PayloadRow] = []
        while True:
            batch = self._rows(KEPT, (found[-1].id if found else -1, KEPT_BATCH))
            found += batch
            if len(batch) < KEPT_BATCH:
                return found
            await asyncio.sleep(0)

    async def delete_cleaned(self, seconds_ago: float) -> None:
        """Delete the rows of Cleaned payloads that ended so long ago."""
        values = (self._now() - seconds_ago, DELETE_BATCH)
        deleted = DELETE_BATCH
        while deleted == DELETE_BATCH:
            deleted = len(self._rows(DELETE_CLEANED, values))
            await asyncio.sleep(0)  # lets other tasks run between two batches

    def _change_running(self, change: str, condition: str, **values: int | str) -> None:
        where = f"id = :id AND status = 'Running' AND {condition}"
        statement = f"UPDATE payloads SET {change} WHERE {where} RETURNING {COLUMNS}"  # noqa: S608
        for row in self._rows(statement, values):
            self._notify(row)

    def _rows(self, statement: str, values: Any) -> list[PayloadRow]:
        return [PayloadRow.of(row) for row in self._execute(statement, values)]

    def _execute(self, statement: str, values: Any) -> list[Any]:
        try:
            return list(self._connection.execute(statement, values))
        except sqlite3.Error as error:
            raise StoreError(str(error)) from error

    def _notify(self, row: PayloadRow) -> PayloadRow:
        for subscriber in self._subscribers:
            subscriber(row)
        return row

    def _notify_given_back(
        self, rows: Sequence[PayloadRow], reason: str, *, started: bool = True
    ) -> None:
        for row in rows:
            self._given_back.add(row.id)
            self._returned.add(row, started=started)
            self._notify(replace(row, status=PayloadStatus.CLEANED, message=reason))


@asynccontextmanager
async def open_payloads(now: Callable[[], float] = steady_time) -> AsyncIterator[PayloadStore]:
    """Open the database. It exists as long as its only connection."""
    with contextlib.closing(
        sqlite3.connect(":memory:", isolation_level=None, factory=database_class())
    ) as connection:
        connection.executescript(SCHEMA)
        yield PayloadStore(connection, now)
