"""JobStore: every change of a job is one compare-and-set statement.

New jobs are written durably, because a 201 promises that the job survives a power cut; transitions
are not, because a lost one is derived again from the client. One connection writes, another one
reads, so that no reader waits for a writer.
"""

import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from job_orchestrator.common.errors import DomainError
from job_orchestrator.common.status import FINAL_JOB, JobStatus, TransitionRefused, origins
from job_orchestrator.server.errors import JobNotFound
from job_orchestrator.server.model import Job, JobOptions, UserLimits
from job_orchestrator.server.store.base import MAX_PLACE, Claim, Offer
from job_orchestrator.server.store.sqlite.abandoned import ADD_ABANDONED, AbandonedKeys
from job_orchestrator.server.store.sqlite.claims import any_queued, claim
from job_orchestrator.server.store.sqlite.creation import (
    NO_LIMITS,
    NO_OPTIONS,
    REPEATED,
    NewJob,
    add,
)
from job_orchestrator.server.store.sqlite.events import JobEvents
from job_orchestrator.server.store.sqlite.listing import JobLists
from job_orchestrator.server.store.sqlite.outbox import Outbox
from job_orchestrator.server.store.sqlite.schema import (
    COLUMNS,
    IS_ACTIVE,
    IS_DISPATCHED,
    IS_ENDED,
    full_database_as_domain_error,
    job_of,
    status_in,
)
from job_orchestrator.server.store.sqlite.usage import USAGE
from job_orchestrator.server.store.sqlite.writer import Connection, Writer

Listener = Callable[[Job], None]

PATIENCE_S = 0.05
"""How long a note that nobody waits for may wait for another transaction."""

MAX_RECENT = 1000
"""Jobs that changed last: what most portals ask for is answered without the database."""


GET = f"SELECT {COLUMNS} FROM jobs WHERE id = ?"  # noqa: S608
# The first condition looks redundant: it makes SQLite use the index of active jobs.
PROCESSING = f"""
SELECT {COLUMNS} FROM jobs WHERE {IS_ACTIVE} AND status = 'Processing'
"""  # noqa: S608
ACTIVE_AT = f"SELECT {COLUMNS} FROM jobs WHERE {IS_ACTIVE} AND client_url = ?"  # noqa: S608
UNKNOWN_SINCE = f"SELECT {COLUMNS} FROM jobs WHERE status = 'Unknown' AND changed_at < ? LIMIT 1000"  # noqa: S608
ENDED_BEFORE = f"""
SELECT {COLUMNS} FROM jobs WHERE {IS_ENDED} AND ended_at < ? ORDER BY ended_at LIMIT ?
"""  # noqa: S608
# Two look-ups, because no index can answer "or".
AHEAD = """
SELECT count(*) FROM (
    SELECT 1 FROM jobs WHERE service = :service AND user_id = :user_id AND status = 'Queued'
    AND priority > :priority
    UNION ALL
    SELECT 1 FROM jobs WHERE service = :service AND user_id = :user_id AND status = 'Queued'
    AND priority = :priority AND id < :id
    LIMIT :limit)
"""

DISPATCHED_TO = f"SELECT DISTINCT client_url FROM jobs WHERE {IS_DISPATCHED}"  # noqa: S608
# A scan of what ended since, in an index; only at the start.
KILLED_WITHOUT_OUTPUT = f"""
SELECT {COLUMNS} FROM jobs WHERE {IS_ENDED} AND ended_at > ? AND status = 'Killed'
    AND dest_id IS NOT NULL AND NOT has_output ORDER BY ended_at DESC LIMIT 100
"""  # noqa: S608


class JobStore:
    """The jobs' database. Listeners are told of every job that changed, after the commit."""

    def __init__(
        self,
        writer: Writer,
        reader: Connection,
        now: Callable[[], float],
    ) -> None:
        self._writer = writer
        self._reader = reader
        self._now = now
        self.outbox = Outbox(writer, reader, now)
        self.lists = JobLists(reader)
        self.events = JobEvents(reader)
        self.abandoned = AbandonedKeys(writer, reader, now)
        # Jobs as they are now: nobody else writes, and each commit is told in order.
        self._recent: OrderedDict[int, Job] = OrderedDict()
        self._listeners: list[Listener] = []
        self._state_listeners: list[Listener] = []
        # A pass while nothing waits, as after the end of each job on a quiet server, costs nothing.
        self._may_be_queued = True

    def subscribe(self, listener: Listener) -> None:
        """Call ``listener`` with every job that is created or changed; it must not block."""
        self._listeners.append(listener)

    def subscribe_to_states(self, listener: Listener) -> None:
        """Like ``subscribe``, but only for jobs that are new or have got another state."""
        self._state_listeners.append(listener)

    async def create(
        self,
        uuid: str,
        user_id: int,
        service: str,
        options: JobOptions = NO_OPTIONS,
        *,
        input_bytes: int = 0,
        limits: UserLimits = NO_LIMITS,
    ) -> Job:
        """Add a queued job whose files are in place. On return it survives a power cut.

        If the user's idempotency key has a job already that is returned, and nothing is added: its
        ``uuid`` is another one. Raises ``TooManyQueued`` or ``TooMuchStored`` if the user is at one
        of the ``limits``.
        """
        new = NewJob(uuid, user_id, service, input_bytes, options)
        now = self._now()

        def told(outcome: Job | DomainError) -> None:
            if isinstance(outcome, Job) and outcome.uuid == uuid:
                self._tell([outcome])

        with full_database_as_domain_error():
            outcome = await self._writer.run(
                lambda connection: add(connection, new, limits, now), told=told, durable=True
            )
        if isinstance(outcome, DomainError):
            raise outcome
        return outcome

    async def check_limits(
        self, user_id: int, input_bytes: int, key: str | None, limits: UserLimits
    ) -> None:
        """Raise what ``create`` would raise now. It still may: others may come before it."""
        if not limits.any:
            return
        rows = await self._reader.execute_fetchall(USAGE, (user_id,))
        queued, stored = next(iter(rows), (0, 0))
        problem = limits.problem(queued, stored, user_id, input_bytes)
        # The key last: what it counts among is there when it is.
        values = {"user_id": user_id, "idempotency_key": key}
        if problem and not await self._reader.execute_fetchall(REPEATED, values):
            raise problem

    async def get(self, job_id: int) -> Job:
        """Return the job. Raises ``JobNotFound``."""
        if (known := self._recent.get(job_id)) is not None:
            return known
        jobs = await self._read(GET, (job_id,))
        if not jobs:
            raise JobNotFound(job_id)
        # It may have changed while it was read.
        return self._recent.get(job_id, jobs[0])

    async def transition(
        self,
        job: Job,
        wanted: JobStatus,
        message: str,
        *,
        dest_id: int | None = None,
        exit_code: int | None = None,
        output_bytes: int | None = None,
        deferred: bool = False,
    ) -> Job:
        """Make ``job`` ``wanted`` if its state allows it and its attempt is still the same.

        The attempt keeps a late answer about an earlier run from ending a later one. Fields that
        are None stay as they are; ``output_bytes`` is the size of the output that the job now has.
        ``deferred`` lets it wait a moment for the transaction of somebody else; what is written
        of the job after it comes after it all the same. Raises ``TransitionRefused`` with the state
        that stands.
        """
        statement = f"""
            UPDATE jobs SET status = :wanted, message = :message, changed_at = :now,
                dest_id = coalesce(:dest_id, dest_id), exit_code = coalesce(:exit_code, exit_code),
                has_output = has_output OR :output_bytes IS NOT NULL,
                output_bytes = coalesce(:output_bytes, output_bytes),
                started_at = CASE WHEN :runs OR (:ran AND {IS_DISPATCHED})
                    THEN coalesce(started_at, :now) ELSE started_at END,
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
            "output_bytes": output_bytes,
            "runs": wanted is JobStatus.RUNNING,
            # That it runs was not seen, or is not written yet.
            "ran": wanted in (JobStatus.COMPLETED, JobStatus.FAILED),
            "ended": wanted in FINAL_JOB,
            "now": self._now(),
        }
        changed = await self._write(statement, values, patience_s=PATIENCE_S if deferred else 0.0)
        if not changed:
            raise TransitionRefused(f"Job {job.id}", (await self.get(job.id)).status, wanted)
        return changed[0]

    async def requeue(
        self,
        job: Job,
        why: str,
        *,
        delay_s: float,
        max_attempts: int,
        counts: bool,
        may_still_run: bool,
    ) -> Job:
        """Give up the present attempt: back to the queue, unless it was the last one.

        ``counts`` says whether it counts towards ``max_attempts``; the last one that does makes the
        job Failed. A job that was to be terminated is Killed instead. ``may_still_run`` notes, in the same
        transaction, that the client may still have the attempt. Raises ``TransitionRefused``.
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
        abandoned = (job.client, job.key, values["now"]) if may_still_run else None
        changed = await self._write(statement, values, abandoned=abandoned)
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
        changed = await self._write(statement, (job_id,), same_state=True)
        return changed[0] if changed else await self.get(job_id)

    async def keep_output(self, job: Job, output_bytes: int) -> None:
        """Note that the output of an ended job has been fetched."""
        statement = f"""
            UPDATE jobs SET has_output = 1, output_bytes = ?
            WHERE id = ? AND attempt = ? AND {IS_ENDED} RETURNING {COLUMNS}"""  # noqa: S608
        values = (output_bytes, job.id, job.attempt)
        await self._write(statement, values, same_state=True)

    async def client_lost(self, client_url: str, why: str) -> Sequence[Job]:
        """Make Unknown what a client that can't be reached has; return those jobs."""
        statement = f"""
            UPDATE jobs SET status = 'Unknown', message = :why, changed_at = :now
            WHERE client_url = :client_url AND {IS_DISPATCHED}
                AND {status_in(origins(JobStatus.UNKNOWN))} RETURNING {COLUMNS}"""  # noqa: S608
        values = {"client_url": client_url, "why": why, "now": self._now()}
        return await self._write(statement, values)

    async def claim(self, offers: Mapping[str, Offer]) -> Mapping[str, Claim]:
        """Claim queued jobs of the services in ``offers``, atomically.

        Returns what was claimed of each service that has queued jobs.
        """
        if not self._may_be_queued:
            return {}
        now = self._now()

        def work(connection: sqlite3.Connection) -> tuple[Mapping[str, Claim], bool]:
            return claim(connection, offers, now), any_queued(connection)

        def tell(outcome: tuple[Mapping[str, Claim], bool]) -> None:
            claims, self._may_be_queued = outcome
            for each in claims.values():
                self._tell(each.jobs)

        claims, _ = await self._writer.run(work, told=tell)
        return claims

    async def active(self, client_url: str) -> Sequence[Job]:
        """Jobs that a client has or is being sent."""
        return await self._read(ACTIVE_AT, (client_url,))

    async def processing(self) -> Sequence[Job]:
        """Jobs that were claimed and may or may not have reached their client."""
        return await self._read(PROCESSING, ())

    async def unknown_for(self, seconds: float) -> Sequence[Job]:
        """Jobs that have been Unknown for longer than ``seconds``."""
        return await self._read(UNKNOWN_SINCE, (self._now() - seconds,))

    async def dispatched_to(self) -> Sequence[str]:
        """The upload URLs of all clients that have a job, configured ones or not."""
        return [url for (url,) in await self._reader.execute_fetchall(DISPATCHED_TO)]

    async def killed_without_output(self, within_s: float) -> Sequence[Job]:
        """The last jobs that were Killed in so many seconds and whose output did not come."""
        return await self._read(KILLED_WITHOUT_OUTPUT, (self._now() - within_s,))

    async def ended_before(self, seconds_ago: float, limit: int) -> Sequence[Job]:
        """Ended jobs that are due to be cleaned, the oldest first."""
        return await self._read(ENDED_BEFORE, (self._now() - seconds_ago, limit))

    async def ahead(self, job: Job) -> int:
        """How many queued jobs of the same user and service come before; at most ``MAX_PLACE``."""
        values = {
            "service": job.service,
            "user_id": job.user_id,
            "priority": job.priority,
            "id": job.id,
            "limit": MAX_PLACE,
        }
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
        """Raise ``DatabaseError`` unless the database can be written."""

        await self._writer.run(lambda _: None, told=lambda _: None)

    async def _read(self, statement: str, values: Sequence[object]) -> Sequence[Job]:
        return [job_of(row) for row in await self._reader.execute_fetchall(statement, values)]

    async def _write(
        self,
        statement: str,
        values: Any,
        *,
        durable: bool = False,
        patience_s: float = 0.0,
        abandoned: tuple[object, ...] | None = None,
        same_state: bool = False,
    ) -> Sequence[Job]:
        """Run one statement that returns jobs; if it does, ``abandoned`` is noted as well.

        ``same_state`` says that it leaves the states of jobs alone.
        """

        def work(connection: sqlite3.Connection) -> Sequence[Job]:
            changed = [job_of(row) for row in connection.execute(statement, values).fetchall()]
            if changed and abandoned is not None:
                connection.execute(ADD_ABANDONED, abandoned)
            return changed

        with full_database_as_domain_error():
            return await self._writer.run(
                work,
                told=self._tell_noted if same_state else self._tell,
                durable=durable,
                patience_s=patience_s,
            )

    def _tell(self, jobs: Sequence[Job]) -> None:
        self._tell_noted(jobs)
        for job in jobs:
            if job.status is JobStatus.QUEUED:
                self._may_be_queued = True
            for listener in self._state_listeners:
                listener(job)

    def _tell_noted(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self._recent[job.id] = job
            self._recent.move_to_end(job.id)
            if len(self._recent) > MAX_RECENT:
                self._recent.popitem(last=False)
            for listener in self._listeners:
                listener(job)
