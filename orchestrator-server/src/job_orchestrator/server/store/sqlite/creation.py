"""Adding a job: a repeat is found and limits are asked in the transaction that adds it."""

import sqlite3
from dataclasses import asdict, dataclass

from job_orchestrator.common.errors import DomainError
from job_orchestrator.server.model import Job, JobOptions, UserLimits
from job_orchestrator.server.store.sqlite.schema import COLUMNS, HAS_KEY, job_of
from job_orchestrator.server.store.sqlite.usage import limit_problem

CREATE = f"""
INSERT INTO jobs (uuid, user_id, service, status, message, created_at, changed_at, name, tag,
    priority, time_limit_s, callback_url, idempotency_key, input_bytes)
VALUES (:uuid, :user_id, :service, 'Queued', '', :now, :now, :name, :tag,
    :priority, :time_limit_s, :callback_url, :idempotency_key, :input_bytes)
RETURNING {COLUMNS}
"""  # noqa: S608
REPEATED = f"""
SELECT {COLUMNS} FROM jobs
WHERE user_id = :user_id AND idempotency_key = :idempotency_key AND {HAS_KEY}
"""  # noqa: S608

NO_OPTIONS = JobOptions()
NO_LIMITS = UserLimits()


@dataclass(frozen=True)
class NewJob:
    """A job whose files, ``input_bytes`` together, are in the folder ``uuid``."""

    uuid: str
    user_id: int
    service: str
    input_bytes: int
    options: JobOptions


def add(
    connection: sqlite3.Connection, new: NewJob, limits: UserLimits, now: float
) -> Job | DomainError:
    """Add a job, or find the one that its idempotency key has.

    An error is returned, not raised: what others write in the same transaction is to stay.
    """
    values = {
        "uuid": new.uuid,
        "user_id": new.user_id,
        "service": new.service,
        "input_bytes": new.input_bytes,
        "now": now,
        **asdict(new.options),
    }
    if new.options.idempotency_key is not None:
        for row in connection.execute(REPEATED, values).fetchall():
            return job_of(row)
    problem = limit_problem(connection, limits, new.user_id, new.input_bytes)
    return problem or job_of(connection.execute(CREATE, values).fetchall()[0])
