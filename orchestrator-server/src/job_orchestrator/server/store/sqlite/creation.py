"""Creation of a job. Repeats and limits are checked in the transaction that adds the row."""

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass

from job_orchestrator.common.errors import DomainError
from job_orchestrator.server.model import Job, JobOptions
from job_orchestrator.server.store.limits import UserLimits
from job_orchestrator.server.store.sqlite.contents import ADD_INPUTS
from job_orchestrator.server.store.sqlite.queue import dependencies
from job_orchestrator.server.store.sqlite.queue.rates import take_token, tokens_of
from job_orchestrator.server.store.sqlite.rows import COLUMNS, HAS_KEY, columns_of, job_of

CREATE = f"""
INSERT INTO jobs (uuid, user_id, service, status, message, created_at, changed_at, name, tag,
    priority, time_limit_s, callback_url, idempotency_key, input_bytes, outputs, results,
    after_success, after_end, cpus, memory_bytes, gpus)
VALUES (:uuid, :user_id, :service, 'Queued', '', :now, :now, :name, :tag,
    :priority, :time_limit_s, :callback_url, :idempotency_key, :input_bytes, :outputs, :results,
    :after_success, :after_end, :cpus, :memory_bytes, :gpus)
RETURNING {COLUMNS}
"""  # noqa: S608

REPEATED = f"""
SELECT {COLUMNS} FROM jobs
WHERE user_id = :user_id AND idempotency_key = :idempotency_key AND {HAS_KEY}
"""  # noqa: S608

REPEATED_ARRAY = f"""
SELECT {columns_of("jobs")} FROM arrays JOIN jobs ON jobs.id = arrays.id
WHERE arrays.user_id = :user_id AND arrays.idempotency_key = :idempotency_key
    AND arrays.idempotency_key IS NOT NULL AND kept > 0
"""  # noqa: S608

# Triggers keep the counters of a user, so that limits cost one look-up however many jobs there are.
USAGE = "SELECT queued, stored_bytes FROM usage WHERE user_id = ?"


@dataclass(frozen=True)
class NewJob:
    """A job to add. Its files are ``inputs``, or are stored under ``uuid`` if that is None."""

    uuid: str
    user_id: int
    service: str
    input_bytes: int
    inputs: bytes | None
    options: JobOptions


def values_of(new: NewJob, now: float) -> dict[str, object]:
    """Return the values of the columns of a new job."""
    options = new.options
    values = {
        "uuid": new.uuid,
        "user_id": new.user_id,
        "service": new.service,
        "input_bytes": new.input_bytes,
        "now": now,
        **vars(options),
        "outputs": "\n".join(options.selection.outputs),
        "results": options.selection.kind,
        "after_success": ",".join(map(str, options.after_success)),
        "after_end": ",".join(map(str, options.after_end)),
        "cpus": options.wanted.cpus,
        "memory_bytes": options.wanted.memory_bytes,
        "gpus": options.wanted.gpus,
    }
    del values["selection"], values["wanted"]
    return values


def repeated(connection: sqlite3.Connection, values: Mapping[str, object]) -> Job | None:
    """Return the job, or the first task of the array, that has an idempotency key."""
    if values["idempotency_key"] is None:
        return None
    for statement in (REPEATED, REPEATED_ARRAY):
        for row in connection.execute(statement, values).fetchall():
            return job_of(row)
    return None


def refused(
    connection: sqlite3.Connection, new: NewJob, limits: UserLimits, now: float, jobs: int = 1
) -> DomainError | None:
    """Return the error for so many jobs with one set of files; None if they are allowed."""
    return dependencies.problem(connection, new.user_id, new.options) or _limit_problem(
        connection, limits, new.user_id, new.input_bytes, now, jobs
    )


def add(
    connection: sqlite3.Connection, new: NewJob, limits: UserLimits, now: float
) -> Job | DomainError:
    """Add a job, or return the job that has its idempotency key.

    An error is returned, not raised: the transaction also holds changes of other callers.
    """
    values = values_of(new, now)
    known = repeated(connection, values)
    if known is not None:
        return known
    problem = refused(connection, new, limits, now)
    if problem is not None:
        return problem
    if limits.rate is not None:
        take_token(connection, new.user_id, limits.rate, now)
    job = job_of(connection.execute(CREATE, values).fetchall()[0])
    if new.inputs is not None:
        connection.execute(ADD_INPUTS, (job.id, new.inputs))
    return dependencies.connect(connection, job, new.options, now)


def refusal(
    connection: sqlite3.Connection,
    user_id: int,
    input_bytes: int,
    key: str | None,
    limits: UserLimits,
    now: float,
) -> DomainError | None:
    """Return the error that ``add`` would return now, if any.

    The key is looked up after the counters, so that a job that they include is found by its key.
    """
    problem = _limit_problem(connection, limits, user_id, input_bytes, now)
    if problem is None:
        return None
    values = {"user_id": user_id, "idempotency_key": key}
    return None if repeated(connection, values) is not None else problem


def _limit_problem(
    connection: sqlite3.Connection,
    limits: UserLimits,
    user_id: int,
    input_bytes: int,
    now: float,
    jobs: int = 1,
) -> DomainError | None:
    if not limits.any:
        return None
    queued, stored = connection.execute(USAGE, (user_id,)).fetchone() or (0, 0)
    tokens = 0.0 if limits.rate is None else tokens_of(connection, user_id, limits.rate, now)
    return limits.problem(queued, stored, tokens, user_id, input_bytes, jobs)
