"""Arrays of jobs: their creation in one transaction, and the limit of its active tasks.

Tasks beyond ``max_active`` wait like dependent jobs: they are out of the index of claims. The
transaction that ends a task releases the next one. So a waiting task costs a pass nothing.
"""

import sqlite3
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import fields

from job_orchestrator.common.errors import DomainError
from job_orchestrator.common.status import JobStatus
from job_orchestrator.server.errors import ArrayNotFound
from job_orchestrator.server.model import Job, JobOptions
from job_orchestrator.server.store.arrays import ArrayRequest, JobArray
from job_orchestrator.server.store.limits import UserLimits
from job_orchestrator.server.store.sqlite import updates
from job_orchestrator.server.store.sqlite.connection import Connection
from job_orchestrator.server.store.sqlite.creation import NewJob, refused, repeated, values_of
from job_orchestrator.server.store.sqlite.queue import dependencies
from job_orchestrator.server.store.sqlite.queue.rates import take_token
from job_orchestrator.server.store.sqlite.rows import COLUMNS, IS_UNENDED, job_of
from job_orchestrator.server.store.sqlite.updates import Update
from job_orchestrator.server.store.sqlite.writer import Writer

_ARRAY = ", ".join(field.name for field in fields(JobArray))

NEXT_ID = """
SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'jobs'), 0) + 1
"""

ADD_TASK = """
INSERT INTO jobs (id, uuid, user_id, service, status, message, created_at, changed_at, name, tag,
    priority, time_limit_s, callback_url, outputs, results, after_success, after_end, cpus,
    memory_bytes, gpus, array_id, array_index, array_size, array_waits, open_dependencies)
VALUES (:id, :uuid, :user_id, :service, 'Queued', '', :now, :now, :name, :tag,
    :priority, :time_limit_s, :callback_url, :outputs, :results, :after_success, :after_end, :cpus,
    :memory_bytes, :gpus, :array_id, :array_index, :array_size, :array_waits, :open_dependencies)
"""

ADD_ARRAY = """
INSERT INTO arrays (id, uuid, user_id, idempotency_key, size, max_active, input_bytes, unended,
    waiting, kept)
VALUES (:array_id, :array_uuid, :user_id, :idempotency_key, :array_size, :max_active, :input_bytes,
    :array_size, :waiting, :array_size)
"""

ADD_ARRAY_INPUTS = "INSERT INTO array_inputs (array_id, files) VALUES (?, ?)"

GET_ARRAY = f"SELECT {_ARRAY} FROM arrays WHERE id = ?"  # noqa: S608

COUNTS = "SELECT status, count(*) FROM jobs WHERE array_id = ? GROUP BY status"

TASKS = f"""
SELECT {COLUMNS} FROM jobs WHERE id > :after AND id <= :last ORDER BY id LIMIT :limit
"""  # noqa: S608

UNENDED_TASKS = f"""
SELECT {COLUMNS} FROM jobs
WHERE id > :after AND id <= :last AND {IS_UNENDED} ORDER BY id LIMIT :limit
"""  # noqa: S608


def add_array(
    connection: sqlite3.Connection,
    new: NewJob,
    request: ArrayRequest,
    limits: UserLimits,
    now: float,
) -> Sequence[Job] | DomainError:
    """Add the tasks of an array; or return the job, or first task, with its idempotency key.

    The key is the array's, not that of a task. An error is returned, as by ``creation.add``.
    """
    values = values_of(new, now)
    known = repeated(connection, values)
    if known is not None:
        return [known]
    size = len(request.indexes)
    problem = refused(connection, new, limits, now, jobs=size)
    if problem is not None:
        return problem
    if limits.rate is not None:
        take_token(connection, new.user_id, limits.rate, now, size)
    waits = dependencies.evaluate(connection, new.options)
    ((first,),) = connection.execute(NEXT_ID)
    max_active = min(request.max_active, size)
    values |= {
        "array_id": first,
        "array_uuid": new.uuid,
        "array_size": size,
        "max_active": max_active,
        "waiting": size - max_active,
    }

    def task(number: int) -> dict[str, object]:
        held_back = int(number >= max_active)
        return values | {
            "id": first + number,
            "uuid": str(uuid.uuid4()),
            "array_index": request.indexes[number],
            "array_waits": held_back,
            "open_dependencies": held_back + len(waits.open),
        }

    connection.executemany(ADD_TASK, map(task, range(size)))
    connection.execute(ADD_ARRAY, values)
    if new.inputs is not None:
        connection.execute(ADD_ARRAY_INPUTS, (first, new.inputs))
    dependencies.add_rows(connection, waits, range(first, first + size))
    if waits.failure:
        dependencies.fail_new(connection, range(first, first + size), waits.failure, now)
    window = {"after": first - 1, "last": first + size - 1, "limit": size}
    return [job_of(row) for row in connection.execute(TASKS, window).fetchall()]


class SqliteJobArrays:
    """Arrays in a SQLite database. The methods are documented in ``JobArrays``."""

    def __init__(
        self,
        writer: Writer,
        reader: Connection,
        now: Callable[[], float],
        queue_may_grow: Callable[[], None],
        created: Callable[[Sequence[Job], bytes | None], None],
        apply: Callable[[Update], Awaitable[Sequence[Job]]],
    ) -> None:
        self._writer = writer
        self._reader = reader
        self._now = now
        self._queue_may_grow = queue_may_grow
        self._created = created
        self._apply = apply

    async def create(
        self,
        uuid: str,
        user_id: int,
        service: str,
        options: JobOptions,
        request: ArrayRequest,
        *,
        input_bytes: int,
        inputs: bytes | None,
        limits: UserLimits,
    ) -> tuple[Job, bool]:
        """See ``JobArrays.create``."""
        new = NewJob(uuid, user_id, service, input_bytes, inputs, options)
        now = self._now()

        def work(connection: sqlite3.Connection) -> tuple[Sequence[Job], bool] | DomainError:
            outcome = add_array(connection, new, request, limits, now)
            if isinstance(outcome, DomainError):
                return outcome
            ((is_new,),) = connection.execute(
                "SELECT EXISTS (SELECT 1 FROM arrays WHERE uuid = ?)", (uuid,)
            )
            return outcome, bool(is_new)

        def committed(outcome: tuple[Sequence[Job], bool] | DomainError) -> None:
            if not isinstance(outcome, DomainError) and outcome[1]:
                self._created(outcome[0], inputs)

        self._queue_may_grow()
        outcome = await self._writer.run(work, committed=committed, durable=True)
        if isinstance(outcome, DomainError):
            raise outcome
        jobs, is_new = outcome
        return jobs[0], is_new

    async def request_kill(self, array_id: int) -> None:
        """See ``JobArrays.request_kill``."""
        await self._apply(updates.request_kill_of_array(array_id))

    async def kill_queued(self, array_id: int, limit: int) -> Sequence[Job]:
        """See ``JobArrays.kill_queued``."""
        return await self._apply(updates.kill_queued(array_id, self._now(), limit))

    async def get(self, array_id: int) -> JobArray:
        """See ``JobArrays.get``."""
        rows = await self._reader.rows(GET_ARRAY, (array_id,))
        if not rows:
            raise ArrayNotFound(array_id)
        return JobArray(*rows[0])

    async def counts(self, array_id: int) -> Mapping[JobStatus, int]:
        """See ``JobArrays.counts``."""
        rows = await self._reader.rows(COUNTS, (array_id,))
        return {JobStatus(status): count for status, count in rows}

    async def tasks(
        self, array: JobArray, after: int, limit: int, *, unended: bool = False
    ) -> Sequence[Job]:
        """See ``JobArrays.tasks``."""
        values = {"after": max(after, array.id - 1), "last": array.last, "limit": limit}
        rows = await self._reader.rows(UNENDED_TASKS if unended else TASKS, values)
        return [job_of(row) for row in rows]
