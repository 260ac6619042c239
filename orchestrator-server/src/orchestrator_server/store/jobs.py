"""JobStore: every change of a job is one compare-and-set statement.

Two connections write, one after the other: ``accept`` with synchronous=FULL, because a 201 promises
that the job survives a power cut; ``internal`` with NORMAL, because a lost transition is derived
again from the client. A third reads, so that no reader waits for a writer.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiosqlite

from orchestrator_common.status import FINAL_JOB, JobStatus, TransitionRefused, origins
from orchestrator_common.threads import to_end
from orchestrator_server.errors import JobNotFound
from orchestrator_server.store.claims import Claim, Decide, claim
from orchestrator_server.store.schema import (
    COLUMNS,
    IS_ACTIVE,
    IS_DISPATCHED,
    IS_ENDED,
    Job,
    connect,
    full_database_as_domain_error,
    job_of,
    migrate,
    status_in,
)

Listener = Callable[[Job], None]

# A job's place is only counted so far; beyond it the answer is "more than".
MAX_PLACE = 1000

QUEUED_SERVICES = """
WITH RECURSIVE names (service) AS (
    SELECT min(service) FROM jobs WHERE status = 'Queued'
    UNION ALL
    SELECT (SELECT min(service) FROM jobs WHERE status = 'Queued' AND service > names.service)
    FROM names WHERE names.service IS NOT NULL
)
SELECT service FROM names WHERE service IS NOT NULL
"""
GET = f"SELECT {COLUMNS} FROM jobs WHERE id = ?"  # noqa: S608
# The first condition looks redundant: it makes SQLite use the index of active jobs.
PROCESSING = f"""
SELECT {COLUMNS} FROM jobs WHERE {IS_ACTIVE} AND status = 'Processing'
"""  # noqa: S608
ACTIVE_AT = f"SELECT {COLUMNS} FROM jobs WHERE {IS_ACTIVE} AND client_url = ?"  # noqa: S608
DISPATCHED = f"SELECT {COLUMNS} FROM jobs WHERE client_url = ? AND {IS_DISPATCHED}"  # noqa: S608
BY_PAYLOAD = f"{DISPATCHED} AND dest_id = ?"
UNKNOWN_SINCE = f"SELECT {COLUMNS} FROM jobs WHERE status = 'Unknown' AND changed_at < ? LIMIT 1000"  # noqa: S608
ENDED_BEFORE = f"""
SELECT {COLUMNS} FROM jobs WHERE {IS_ENDED} AND ended_at < ? ORDER BY ended_at LIMIT ?
"""  # noqa: S608
AHEAD = """
SELECT count(*) FROM (SELECT 1 FROM jobs
    WHERE service = ? AND user_id = ? AND status = 'Queued' AND id < ? LIMIT ?)
"""


class JobStore:
    """The jobs' database. Listeners are told of every job that changed, after the commit."""

    def __init__(
        self,
        accept: aiosqlite.Connection,
        internal: aiosqlite.Connection,
        reader: aiosqlite.Connection,
        now: Callable[[], float],
    ) -> None:
        self._accept = accept
        self._internal = internal
        self._reader = reader
        self._now = now
        self._writing = asyncio.Lock()
        self._listeners: list[Listener] = []

    def subscribe(self, listener: Listener) -> None:
        """Call ``listener`` with every job that is created or changed; it must not block."""
        self._listeners.append(listener)

    async def create(self, uuid: str, user_id: int, service: str) -> Job:
        """Add a queued job whose files are in place. On return it survives a power cut."""
        statement = f"""
            INSERT INTO jobs (uuid, user_id, service, status, message, created_at, changed_at)
            VALUES (?, ?, ?, 'Queued', '', ?, ?) RETURNING {COLUMNS}"""  # noqa: S608
        now = self._now()
        jobs = await self._write(self._accept, statement, (uuid, user_id, service, now, now))
        return jobs[0]

    async def get(self, job_id: int) -> Job:
        """Return the job. Raises ``JobNotFound``."""
        jobs = await self._read(GET, (job_id,))
        if not jobs:
            raise JobNotFound(job_id)
        return jobs[0]

    async def transition(
        self,
        job: Job,
        wanted: JobStatus,
        message: str,
        *,
        dest_id: int | None = None,
        exit_code: int | None = None,
        has_output: bool = False,
    ) -> Job:
        """Make ``job`` ``wanted`` if its state allows it and its attempt is still the same.

        The attempt keeps a late answer about an earlier run from ending a later one. Fields that
        are None stay as they are. Raises ``TransitionRefused`` with the state that stands.
        """
        statement = f"""
            UPDATE jobs SET status = :wanted, message = :message, changed_at = :now,
                dest_id = coalesce(:dest_id, dest_id), exit_code = coalesce(:exit_code, exit_code),
                has_output = max(has_output, :has_output),
                ended_at = CASE WHEN :ended THEN :now ELSE ended_at END
            WHERE id = :id AND attempt = :attempt AND {status_in(origins(wanted))}
            RETURNING {COLUMNS}"""  # noqa: S608
        values = {
            "id": job.id,
            "attempt": job.attempt,
            "wanted": wanted,
            "message": message,
            "dest_id": dest_id,
            "exit_code": exit_code,
            "has_output": has_output,
            "ended": wanted in FINAL_JOB,
            "now": self._now(),
        }
        changed = await self._write(self._internal, statement, values)
        if not changed:
            raise TransitionRefused(f"Job {job.id}", (await self.get(job.id)).status, wanted)
        return changed[0]

    async def requeue(
        self, job: Job, why: str, *, delay_s: float, max_attempts: int, counts: bool
    ) -> Job:
        """Give up the present attempt: back to the queue, unless it was the last one.

        ``counts`` says whether it counts towards ``max_attempts``; the last one that does makes the
        job Failed. A job that was to be terminated is Killed instead. Raises ``TransitionRefused``.
        """
        statement = f"""
            UPDATE jobs SET failures = failures + :counts,
                status = CASE WHEN kill_requested THEN 'Killed'
                    WHEN failures + :counts >= :max_attempts THEN 'Failed' ELSE 'Queued' END,
                ended_at = CASE WHEN kill_requested OR failures + :counts >= :max_attempts
                    THEN :now ELSE NULL END,
                message = CASE WHEN kill_requested THEN 'Terminated on request' ELSE :why END,
                not_before = :now + :delay, changed_at = :now,
                client_url = NULL, dest_id = NULL
            WHERE id = :id AND attempt = :attempt
                AND {status_in(origins(JobStatus.QUEUED))}
            RETURNING {COLUMNS}"""  # noqa: S608
        values = {
            "id": job.id,
            "attempt": job.attempt,
            "counts": int(counts),
            # An attempt that doesn't count never ends a job, not even one that has used up its own.
            "max_attempts": max_attempts if counts else job.failures + 1,
            "why": why,
            "delay": delay_s,
            "now": self._now(),
        }
        changed = await self._write(self._internal, statement, values)
        if not changed:
            raise TransitionRefused(
                f"Job {job.id}", (await self.get(job.id)).status, JobStatus.QUEUED
            )
        return changed[0]

    async def request_kill(self, job_id: int) -> Job:
        """Note that the job is to be terminated, unless it has ended; return it as it then is."""
        statement = f"""
            UPDATE jobs SET kill_requested = 1 WHERE id = ?
                AND {status_in(origins(JobStatus.KILLED))} RETURNING {COLUMNS}"""  # noqa: S608
        changed = await self._write(self._internal, statement, (job_id,))
        return changed[0] if changed else await self.get(job_id)

    async def keep_output(self, job: Job) -> None:
        """Note that the output of an ended job has been fetched."""
        statement = f"""
            UPDATE jobs SET has_output = 1 WHERE id = ? AND attempt = ? AND {IS_ENDED}
            RETURNING {COLUMNS}"""  # noqa: S608
        await self._write(self._internal, statement, (job.id, job.attempt))

    async def client_lost(self, client_url: str, why: str) -> Sequence[Job]:
        """Make Unknown what a client that can't be reached has; return those jobs."""
        statement = f"""
            UPDATE jobs SET status = 'Unknown', message = :why, changed_at = :now
            WHERE client_url = :client_url AND {IS_DISPATCHED}
                AND {status_in(origins(JobStatus.UNKNOWN))} RETURNING {COLUMNS}"""  # noqa: S608
        values = {"client_url": client_url, "why": why, "now": self._now()}
        return await self._write(self._internal, statement, values)

    async def claim(
        self, service: str, *, max_active: int, clients: Sequence[str], decide: Decide
    ) -> Claim:
        """Claim queued jobs of ``service`` for ``clients`` as ``decide`` says, atomically."""

        async def work() -> Claim:
            async with self._writing:
                claimed = await claim(
                    self._internal,
                    service,
                    max_active=max_active,
                    clients=clients,
                    decide=decide,
                    now=self._now(),
                )
            self._tell(claimed.jobs)
            return claimed

        return await to_end(work())

    async def queued_services(self) -> list[str]:
        """Names of the services that have queued jobs."""
        return [str(name) for (name,) in await self._reader.execute_fetchall(QUEUED_SERVICES)]

    async def active(self, client_url: str) -> Sequence[Job]:
        """Jobs that a client has or is being sent."""
        return await self._read(ACTIVE_AT, (client_url,))

    async def processing(self) -> Sequence[Job]:
        """Jobs that were claimed and may or may not have reached their client."""
        return await self._read(PROCESSING, ())

    async def dispatched(self, client_url: str) -> Sequence[Job]:
        """Jobs whose payload a client has."""
        return await self._read(DISPATCHED, (client_url,))

    async def by_payload(self, client_url: str, dest_id: int) -> Job | None:
        """The active job whose payload at that client has this id, if there is one."""
        jobs = await self._read(BY_PAYLOAD, (client_url, dest_id))
        return jobs[0] if jobs else None

    async def unknown_for(self, seconds: float) -> Sequence[Job]:
        """Jobs that have been Unknown for longer than ``seconds``."""
        return await self._read(UNKNOWN_SINCE, (self._now() - seconds,))

    async def ended_before(self, seconds_ago: float, limit: int) -> Sequence[Job]:
        """Ended jobs that are due to be cleaned, the oldest first."""
        return await self._read(ENDED_BEFORE, (self._now() - seconds_ago, limit))

    async def ahead(self, job: Job) -> int:
        """How many queued jobs of the same user and service come before; at most ``MAX_PLACE``."""
        values = (job.service, job.user_id, job.id, MAX_PLACE)
        ((count,),) = await self._reader.execute_fetchall(AHEAD, values)
        return int(count)

    async def known(self, uuids: Sequence[str]) -> set[str]:
        """Those of ``uuids`` that belong to a job whose files are kept."""
        marks = ", ".join("?" for _ in uuids)
        rows = await self._reader.execute_fetchall(
            f"SELECT uuid FROM jobs WHERE uuid IN ({marks}) AND status <> 'Cleaned'",  # noqa: S608
            uuids,
        )
        return {str(uuid) for (uuid,) in rows}

    async def check(self) -> None:
        """Raise ``sqlite3.Error`` unless the database can be written."""

        async def work() -> None:
            async with self._writing:
                await self._internal.execute("BEGIN IMMEDIATE")
                await self._internal.execute("ROLLBACK")

        await to_end(work())

    async def _read(self, statement: str, values: Sequence[object]) -> Sequence[Job]:
        return [job_of(row) for row in await self._reader.execute_fetchall(statement, values)]

    async def _write(
        self, connection: aiosqlite.Connection, statement: str, values: Any
    ) -> Sequence[Job]:
        """Run one statement to its end, even if the caller is cancelled meanwhile."""

        async def work() -> Sequence[Job]:
            async with self._writing:
                with full_database_as_domain_error():
                    rows = await connection.execute_fetchall(statement, values)
            jobs = [job_of(row) for row in rows]
            self._tell(jobs)
            return jobs

        return await to_end(work())

    def _tell(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            for listener in self._listeners:
                listener(job)


@asynccontextmanager
async def open_store(path: Path, now: Callable[[], float] = time.time) -> AsyncIterator[JobStore]:
    """Open (create, migrate) the database. Raises ``StartupError``."""
    accept = await connect(path, synchronous="FULL")
    connections = [accept]
    try:
        await migrate(accept)
        connections.append(internal := await connect(path, synchronous="NORMAL"))
        connections.append(reader := await connect(path, synchronous="NORMAL"))
        yield JobStore(accept, internal, reader, now)
    finally:
        for connection in connections:
            await connection.close()
