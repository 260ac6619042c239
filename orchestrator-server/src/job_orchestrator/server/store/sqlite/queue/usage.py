"""Usage of slots in the database: one row for each user of a service, in the table ``served``."""

import sqlite3

from job_orchestrator.server.model import Job
from job_orchestrator.server.store.sqlite.rows import IS_ACTIVE
from job_orchestrator.server.store.usage import Usage

OF_USER = """
SELECT usage_s, slots, usage_at FROM served WHERE service = :service AND user_id = :user_id
"""

SETTLE = """
UPDATE served SET usage_s = :usage_s, slots = :slots, usage_at = :usage_at
WHERE service = :service AND user_id = :user_id
"""

MARK_SERVED = """
INSERT INTO served (service, user_id, turn, usage_s, slots, usage_at)
VALUES (:service, :user_id,
    coalesce((SELECT max(turn) FROM served WHERE service = :service), 0) + 1,
    :usage_s, :slots, :usage_at)
ON CONFLICT (service, user_id) DO UPDATE SET turn = excluded.turn,
    usage_s = excluded.usage_s, slots = excluded.slots, usage_at = excluded.usage_at
"""

_HELD_NOW = f"""
SELECT count(*) FROM jobs INDEXED BY jobs_active
WHERE service = served.service AND user_id = served.user_id AND {IS_ACTIVE}
"""  # noqa: S608

ADD_MISSING = f"""
INSERT INTO served (service, user_id, turn, slots, usage_at)
SELECT service, user_id, 0, count(*), :now FROM jobs INDEXED BY jobs_active WHERE {IS_ACTIVE}
GROUP BY service, user_id ON CONFLICT (service, user_id) DO NOTHING
"""  # noqa: S608

RECOUNT = f"""
UPDATE served SET slots = ({_HELD_NOW}), usage_at = max(usage_at, :now) WHERE slots <> ({_HELD_NOW})
"""  # noqa: S608


def usage_of(connection: sqlite3.Connection, service: str, user_id: int) -> Usage:
    """Return the usage of a user of a service."""
    row = connection.execute(OF_USER, {"service": service, "user_id": user_id}).fetchone()
    return Usage(*row) if row else Usage()


def mark_served(connection: sqlite3.Connection, service: str, user_id: int, usage: Usage) -> None:
    """Record a claim for a user, who has used and holds ``usage`` with it."""
    connection.execute(MARK_SERVED, _values(service, user_id, usage))


def give_back(connection: sqlite3.Connection, job: Job, now: float, half_life_s: float) -> None:
    """Record that a job no longer holds a slot.

    What its script did not use counts for nothing: its end may have become known much later.
    """
    usage = usage_of(connection, job.service, job.user_id)
    settled = usage.holding(usage.slots - 1, now, half_life_s)
    if job.run_s is not None and job.started_at is not None:
        settled = settled.less(max(now - job.started_at - job.run_s, 0.0))
    connection.execute(SETTLE, _values(job.service, job.user_id, settled))


def recount(connection: sqlite3.Connection, now: float) -> None:
    """Correct the numbers of held slots, which a change by other means has made wrong."""
    connection.execute(ADD_MISSING, {"now": now})
    connection.execute(RECOUNT, {"now": now})


def _values(service: str, user_id: int, usage: Usage) -> dict[str, object]:
    return {
        "service": service,
        "user_id": user_id,
        "usage_s": usage.seconds,
        "slots": usage.slots,
        "usage_at": usage.at,
    }
