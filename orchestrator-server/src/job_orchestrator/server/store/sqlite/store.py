"""Implementation of ``JobStore`` on SQLite.

One connection writes and another one reads, so that no reader waits for a writer. This process is
the only writer of the file.
"""

import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from job_orchestrator.common.errors import DomainError
from job_orchestrator.common.runtime.clock import steady_time
from job_orchestrator.common.status import JobStatus, TransitionRefused
from job_orchestrator.server.errors import JobNotFound, JobNotQueued
from job_orchestrator.server.model import Job, JobOptions, StoredOutput, UserLimits
from job_orchestrator.server.store.base import (
    NO_LIMITS,
    NO_OPTIONS,
    AbandonedKeys,
    Acknowledgements,
    JobEvents,
    JobStore,
    Outbox,
    Subscriber,
)
from job_orchestrator.server.store.identities import IdentityStore
from job_orchestrator.server.store.installation import Installation
from job_orchestrator.server.store.lists import JobLists
from job_orchestrator.server.store.queue import Claim, JobQueue, Offer
from job_orchestrator.server.store.recent import RecentChanges
from job_orchestrator.server.store.registrations import Registrations
from job_orchestrator.server.store.sqlite import updates
from job_orchestrator.server.store.sqlite.claims import Claimer, any_queued
from job_orchestrator.server.store.sqlite.clients.registrations import SqliteRegistrations
from job_orchestrator.server.store.sqlite.clients.unconfirmed import (
    SqliteAbandonedKeys,
    SqliteAcknowledgements,
    SqliteOutbox,
)
from job_orchestrator.server.store.sqlite.connection import Connection, Values, connect
from job_orchestrator.server.store.sqlite.contents import SqliteContents
from job_orchestrator.server.store.sqlite.creation import NewJob, add, refusal
from job_orchestrator.server.store.sqlite.events import SqliteJobEvents, skip_numbers
from job_orchestrator.server.store.sqlite.identities import SqliteIdentities
from job_orchestrator.server.store.sqlite.listing import SqliteJobLists
from job_orchestrator.server.store.sqlite.queue.chains import Chains
from job_orchestrator.server.store.sqlite.queue.dependencies import resume
from job_orchestrator.server.store.sqlite.queue.usage import recount
from job_orchestrator.server.store.sqlite.queue.waiting import SqliteJobQueue
from job_orchestrator.server.store.sqlite.rows import (
    COLUMNS,
    IS_ACTIVE,
    IS_DISPATCHED,
    IS_ENDED,
    UNKNOWN_SINCE,
    job_of,
    unknown_since,
)
from job_orchestrator.server.store.sqlite.schema import enable_release, migrate, release_pages
from job_orchestrator.server.store.sqlite.updates import Update
from job_orchestrator.server.store.sqlite.writer import Writer
from job_orchestrator.server.store.usage import HALF_LIFE_S

MAX_DELAY_S = 0.05
"""Time that a deferred change may wait for another transaction."""

UUIDS_AT_ONCE = 500
"""UUIDs in one query: SQLite limits the number of parameters."""

GET = f"SELECT {COLUMNS} FROM jobs WHERE id = ?"  # noqa: S608
# The first condition is redundant. With it SQLite uses the index of active jobs.
PROCESSING = f"""
SELECT {COLUMNS} FROM jobs WHERE {IS_ACTIVE} AND status = 'Processing'
"""  # noqa: S608
ACTIVE_AT = f"SELECT {COLUMNS} FROM jobs WHERE {IS_ACTIVE} AND client_url = ?"  # noqa: S608
ENDED_BEFORE = f"""
SELECT {COLUMNS} FROM jobs WHERE {IS_ENDED} AND ended_at < ? ORDER BY ended_at LIMIT ?
"""  # noqa: S608
DISPATCHED_TO = f"SELECT DISTINCT client_url FROM jobs WHERE {IS_DISPATCHED}"  # noqa: S608
# Scans the index of ended jobs over the given time. Called at the start only.
KILLED_WITHOUT_OUTPUT = f"""
SELECT {COLUMNS} FROM jobs WHERE {IS_ENDED} AND ended_at > ? AND status = 'Killed'
    AND dest_id IS NOT NULL AND NOT has_output ORDER BY ended_at DESC LIMIT 100
"""  # noqa: S608


@asynccontextmanager
async def open_store(
    path: Path,
    now: Callable[[], float] = steady_time,
    *,
    wrote: Callable[[float], None] = lambda _: None,
    half_life_s: float = HALF_LIFE_S,
) -> AsyncIterator[JobStore]:
    """Open the database, create it if it is missing, and migrate it. Raises ``StartupError``.

    ``now`` returns seconds since the epoch. ``wrote`` is called with the duration of each
    transaction in seconds. ``half_life_s`` is that of the usage of slots (see ``Usage``).
    """
    async with contextlib.AsyncExitStack() as connections:
        writing = await connect(path)
        connections.push_async_callback(writing.close)
        await migrate(writing)
        await enable_release(writing, path)
        reading = await connect(path)
        connections.push_async_callback(reading.close)
        ((name,),) = await reading.rows("SELECT id FROM installation")
        writer = Writer(writing, wrote)
        await writer.run(skip_numbers, durable=True)
        await writer.run(lambda connection: recount(connection, now()))
        await writer.run(lambda connection: resume(connection, now()), durable=True)
        store = SqliteJobStore(writer, reading, Installation(name), now, half_life_s)
        connections.push_async_callback(store.close)
        yield store


class SqliteJobStore:
    """Jobs in a SQLite database. The methods are documented in ``JobStore``."""

    installation: Installation
    lists: JobLists
    queue: JobQueue
    events: JobEvents
    outbox: Outbox
    abandoned: AbandonedKeys
    acknowledgements: Acknowledgements
    identities: IdentityStore

    def __init__(
        self,
        writer: Writer,
        reader: Connection,
        installation: Installation,
        now: Callable[[], float],
        half_life_s: float = HALF_LIFE_S,
    ) -> None:
        self.installation = installation
        self._claimer = Claimer(installation, half_life_s)
        self._half_life_s = half_life_s
        self._writer = writer
        self._reader = reader
        self._now = now
        self.lists = SqliteJobLists(reader)
        self.queue = SqliteJobQueue(writer, reader, now, half_life_s)
        self.events = SqliteJobEvents(reader)
        self.outbox = SqliteOutbox(writer, reader, now)
        self.abandoned = SqliteAbandonedKeys(writer, reader, now)
        self.acknowledgements = SqliteAcknowledgements(writer, reader, now)
        self.identities = SqliteIdentities(writer, reader, now)
        self.registrations: Registrations = SqliteRegistrations(writer, reader, now)
        self._recent = RecentChanges()
        # False while no job is queued: a claim then returns without a query.
        self._may_be_queued = True
        # Counts changes that may queue a job, from the moment that they wait for a transaction.
        self._additions = 0
        self._contents = SqliteContents(reader)
        self._chains = Chains(writer, now, self._publish)

    def subscribe(self, subscriber: Subscriber, *, status_changes_only: bool = False) -> None:
        """See ``JobStore.subscribe``."""
        self._recent.subscribe(subscriber, status_changes_only=status_changes_only)

    async def create(
        self,
        uuid: str,
        user_id: int,
        service: str,
        options: JobOptions = NO_OPTIONS,
        *,
        input_bytes: int = 0,
        inputs: bytes | None = None,
        limits: UserLimits = NO_LIMITS,
    ) -> Job:
        """See ``JobStore.create``."""
        new = NewJob(uuid, user_id, service, input_bytes, inputs, options)
        now = self._now()

        def committed(outcome: Job | DomainError) -> None:
            if isinstance(outcome, Job) and outcome.uuid == uuid:
                self._contents.created(outcome, inputs)
                self._publish([outcome])

        self._queue_may_grow()
        outcome = await self._writer.run(
            lambda connection: add(connection, new, limits, now), committed=committed, durable=True
        )
        if isinstance(outcome, DomainError):
            raise outcome
        return outcome

    async def check_limits(
        self, user_id: int, input_bytes: int, key: str | None, limits: UserLimits
    ) -> None:
        """See ``JobStore.check_limits``."""
        if not limits.any:
            return
        refused = await self._reader.run(
            lambda connection: refusal(connection, user_id, input_bytes, key, limits, self._now())
        )
        if refused is not None:
            raise refused

    async def get(self, job_id: int) -> Job:
        """See ``JobStore.get``."""
        if (recent := self._recent.get(job_id)) is not None:
            return recent
        jobs = await self._jobs(GET, (job_id,))
        if not jobs:
            raise JobNotFound(job_id)
        # It may have changed after it was read.
        return self._recent.get(job_id) or jobs[0]

    async def inputs(self, job: Job) -> bytes | None:
        """See ``JobStore.inputs``."""
        return await self._contents.inputs(job)

    async def result(self, job: Job) -> bytes | None:
        """See ``JobStore.result``."""
        return await self._contents.result(job)

    async def transition(
        self,
        job: Job,
        wanted: JobStatus,
        message: str,
        *,
        dest_id: int | None = None,
        exit_code: int | None = None,
        output: StoredOutput | None = None,
        acknowledge: int | None = None,
        at: float | None = None,
        run_s: float | None = None,
        deferred: bool = False,
    ) -> Job:
        """See ``JobStore.transition``."""
        now = self._now()
        update = updates.transition(
            job,
            wanted,
            message,
            now,
            at=now if at is None else min(at, now),
            dest_id=dest_id,
            exit_code=exit_code,
            output=output,
            acknowledge=acknowledge,
            run_s=run_s,
        )
        changed = await self._apply(update, max_delay_s=MAX_DELAY_S if deferred else 0.0)
        if not changed:
            raise TransitionRefused(f"Job {job.id}", (await self.get(job.id)).status, wanted)
        return changed[0]

    async def explain(self, job: Job, message: str) -> None:
        """See ``JobStore.explain``."""
        await self._apply(updates.explain(job, message, self._now()), max_delay_s=MAX_DELAY_S)

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
        """See ``JobStore.requeue``."""
        update = updates.requeue(
            job,
            why,
            self._now(),
            delay_s=delay_s,
            max_attempts=max_attempts,
            counts=counts,
            may_still_run=may_still_run,
        )
        self._queue_may_grow()
        changed = await self._apply(update)
        if not changed:
            status = (await self.get(job.id)).status
            raise TransitionRefused(f"Job {job.id}", status, JobStatus.QUEUED)
        return changed[0]

    async def request_kill(self, job_id: int) -> Job:
        """See ``JobStore.request_kill``."""
        changed = await self._apply(updates.request_kill(job_id))
        return changed[0] if changed else await self.get(job_id)

    async def change_queued(
        self, job_id: int, *, held: bool | None = None, priority: int | None = None
    ) -> Job:
        """See ``JobStore.change_queued``."""
        changed = await self._apply(updates.change_queued(job_id, held, priority))
        if not changed:
            raise JobNotQueued(job_id, (await self.get(job_id)).status)
        return changed[0]

    async def keep_output(self, job: Job, output: StoredOutput) -> None:
        """See ``JobStore.keep_output``."""
        await self._apply(updates.keep_output(job, output, self._now()))

    async def client_lost(self, client: str, why: str) -> Sequence[Job]:
        """See ``JobStore.client_lost``."""
        return await self._apply(updates.client_lost(client, why, self._now()))

    async def claim(self, offers: Mapping[str, Offer]) -> Mapping[str, Claim]:
        """See ``JobStore.claim``."""
        if not self._may_be_queued:
            return {}
        now, additions = self._now(), self._additions

        def work(connection: sqlite3.Connection) -> tuple[Mapping[str, Claim], bool]:
            return self._claimer.claim(connection, offers, now), any_queued(connection)

        def committed(outcome: tuple[Mapping[str, Claim], bool]) -> None:
            claims, any_left = outcome
            self._may_be_queued = any_left or self._additions != additions
            for each in claims.values():
                self._publish(each.jobs)

        claims, _ = await self._writer.run(work, committed=committed, durable=True)
        return claims

    async def active(self, client: str) -> Sequence[Job]:
        """See ``JobStore.active``."""
        return await self._jobs(ACTIVE_AT, (client,))

    async def processing(self) -> Sequence[Job]:
        """See ``JobStore.processing``."""
        return await self._jobs(PROCESSING)

    async def unknown_for(self, seconds: float, of: Mapping[str, float]) -> Sequence[Job]:
        """See ``JobStore.unknown_for``."""
        return await self._jobs(UNKNOWN_SINCE, unknown_since(self._now(), seconds, of))

    async def dispatched_to(self) -> Sequence[str]:
        """See ``JobStore.dispatched_to``."""
        return [client for (client,) in await self._reader.rows(DISPATCHED_TO)]

    async def killed_without_output(self, within_s: float) -> Sequence[Job]:
        """See ``JobStore.killed_without_output``."""
        return await self._jobs(KILLED_WITHOUT_OUTPUT, (self._now() - within_s,))

    async def ended_before(self, seconds_ago: float, limit: int) -> Sequence[Job]:
        """See ``JobStore.ended_before``."""
        return await self._jobs(ENDED_BEFORE, (self._now() - seconds_ago, limit))

    async def with_uuids(self, uuids: Sequence[str]) -> Mapping[str, Job]:
        """See ``JobStore.with_uuids``."""
        found: dict[str, Job] = {}
        for start in range(0, len(uuids), UUIDS_AT_ONCE):
            batch = uuids[start : start + UUIDS_AT_ONCE]
            marks = ", ".join("?" for _ in batch)
            statement = f"SELECT {COLUMNS} FROM jobs WHERE uuid IN ({marks})"  # noqa: S608
            found |= {job.uuid: job for job in await self._jobs(statement, batch)}
        return found

    async def known(self, uuids: Sequence[str]) -> set[str]:
        """See ``JobStore.known``."""
        marks = ", ".join("?" for _ in uuids)
        statement = f"SELECT uuid FROM jobs WHERE uuid IN ({marks}) AND status <> 'Cleaned'"  # noqa: S608
        return {str(uuid) for (uuid,) in await self._reader.rows(statement, uuids)}

    async def release_space(self) -> None:
        """See ``JobStore.release_space``."""
        while await self._writer.run(release_pages):
            pass

    async def close(self) -> None:
        """Stop the tasks of the store, before its connections are closed."""
        await self._chains.close()

    async def check(self) -> None:
        """See ``JobStore.check``."""
        await self._writer.run(lambda _: None)

    async def _jobs(self, statement: str, values: Values = ()) -> Sequence[Job]:
        return [job_of(row) for row in await self._reader.rows(statement, values)]

    async def _apply(self, update: Update, *, max_delay_s: float = 0.0) -> Sequence[Job]:
        def committed(applied: updates.Applied) -> None:
            for job in applied.jobs:
                self._contents.changed(job, update.result)
            self._publish(applied.jobs, status_changed=update.changes_status)
            self._chains.committed(applied.consequences)

        applied = await self._writer.run(
            lambda connection: update.apply(connection, self._half_life_s),
            committed=committed,
            durable=update.durable,
            max_delay_s=max_delay_s,
        )
        return applied.jobs

    def _queue_may_grow(self) -> None:
        self._additions += 1
        self._may_be_queued = True

    def _publish(self, jobs: Sequence[Job], *, status_changed: bool = True) -> None:
        if any(job.status is JobStatus.QUEUED for job in jobs):
            self._may_be_queued = True
        self._recent.publish(jobs, status_changed=status_changed)
