"""Dependencies between jobs: what a new job waits for, and what the end of a job leads to.

A queued job counts the jobs that it waits for, and is out of the index of claims until the count is
0. The transaction that ends a job removes its rows, so that the table holds only what still waits.
"""

import sqlite3
import sys
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from job_orchestrator.common.status import JobStatus
from job_orchestrator.server.errors import InvalidSubmission
from job_orchestrator.server.model import Job, JobOptions
from job_orchestrator.server.store.sqlite.rows import COLUMNS, columns_of, job_of

PREDECESSOR = "SELECT user_id, status FROM jobs WHERE id = ?"

ADD = "INSERT INTO dependencies (on_id, job_id, needs_success) VALUES (?, ?, ?)"

COUNT = f"""
UPDATE jobs SET open_dependencies = ? WHERE id = ? AND status = 'Queued' RETURNING {COLUMNS}
"""  # noqa: S608

FAIL_NEW = f"""
UPDATE jobs SET status = 'Failed', message = :why, changed_at = :now,
    ended_at = max(:now, created_at)
WHERE id = :id AND status = 'Queued' RETURNING {COLUMNS}
"""  # noqa: S608

# A request to terminate the job was recorded first, so that it counts.
FAIL = f"""
UPDATE jobs SET status = CASE WHEN kill_requested THEN 'Killed' ELSE 'Failed' END,
    message = CASE WHEN kill_requested THEN 'Terminated on request' ELSE :why END,
    changed_at = :now, ended_at = max(:now, created_at)
WHERE id IN (SELECT job_id FROM dependencies WHERE on_id = :id AND job_id <= :last
    AND needs_success) AND status = 'Queued'
RETURNING {COLUMNS}
"""  # noqa: S608

RELEASE = f"""
UPDATE jobs SET open_dependencies = open_dependencies - 1
WHERE id IN (SELECT job_id FROM dependencies WHERE on_id = :id AND job_id <= :last)
    AND status = 'Queued'
RETURNING {COLUMNS}
"""  # noqa: S608

FORGET = "DELETE FROM dependencies WHERE on_id = :id AND job_id <= :last"

ENDED = f"""
SELECT {columns_of("jobs")} FROM (SELECT DISTINCT on_id FROM dependencies)
CROSS JOIN jobs ON jobs.id = on_id WHERE jobs.ended_at IS NOT NULL
"""  # noqa: S608

WAITING = """
SELECT min(needs_success), max(needs_success), max(job_id), count(*) FROM (
    SELECT job_id, needs_success FROM dependencies WHERE on_id = :id ORDER BY job_id LIMIT :limit)
"""


MAX_AT_ONCE = 500
"""Jobs that one transaction ends or releases because a job before them has ended: others wait."""


class Consequences(NamedTuple):
    """Jobs that ended because a job before them has ended, and jobs that wait for less now.

    ``unfinished`` are ended jobs whose end is still to be applied, in another transaction. A start
    of the server applies it as well.
    """

    ended: Sequence[Job]
    released: Sequence[Job]
    unfinished: Sequence[Job] = ()


NO_CONSEQUENCES = Consequences((), ())


def problem(
    connection: sqlite3.Connection, user_id: int, options: JobOptions
) -> InvalidSubmission | None:
    """Return the error for a dependency that a job of this user can't have, None if there is none.

    All ids exist before the job does. Therefore no cycle can be made.
    """
    fields = (("after", options.after_success), ("afterany", options.after_end))
    for field, ids in fields:
        for on_id in ids:
            row = connection.execute(PREDECESSOR, (on_id,)).fetchone()
            if row is None or row[0] != user_id:
                return InvalidSubmission(
                    f"Invalid {field}, there is no job {on_id} of user {user_id}"
                )
    return None


def connect(connection: sqlite3.Connection, job: Job, now: float) -> Job:
    """Let a job that was just added wait for its dependencies; return it as it is then.

    It fails instead if one of them has failed already.
    """
    waits_for = 0
    needed = set(job.after_success)
    for on_id in sorted({*job.after_success, *job.after_end}):
        _, word = connection.execute(PREDECESSOR, (on_id,)).fetchone()
        status = JobStatus(word)
        if not status.has_ended:
            connection.execute(ADD, (on_id, job.id, on_id in needed))
            waits_for += 1
        elif on_id in needed and status is not JobStatus.COMPLETED:
            values = {"id": job.id, "now": now, "why": reason(on_id, status)}
            (row,) = connection.execute(FAIL_NEW, values).fetchall()
            return job_of(row)
    if not waits_for:
        return job
    (row,) = connection.execute(COUNT, (waits_for, job.id)).fetchall()
    return job_of(row)


def follow_up(
    connection: sqlite3.Connection, jobs: Sequence[Job], now: float, most: int = MAX_AT_ONCE
) -> Consequences:
    """Apply the ends of ``jobs`` to the jobs that wait for them, and so on down the chain.

    Stops after ``most`` jobs that wait.
    """
    ended: list[Job] = []
    released: dict[int, Job] = {}
    pending = deque(job for job in jobs if job.status.has_ended)
    while pending and most > 0:
        job = pending[0]
        found = connection.execute(WAITING, {"id": job.id, "limit": most}).fetchone()
        all_fail, any_fails, last, count = found
        if count < most:
            pending.popleft()
        if not count:
            continue
        most -= count
        why = reason(job.id, job.status)
        values = {"id": job.id, "last": last, "now": now, "why": why}
        fails = job.status is not JobStatus.COMPLETED
        if fails and any_fails:
            failed = [job_of(row) for row in connection.execute(FAIL, values).fetchall()]
            ended += failed
            pending += failed
        if not (fails and all_fail):
            rows = connection.execute(RELEASE, values).fetchall()
            released |= {row[0]: job_of(row) for row in rows}
        connection.execute(FORGET, values)
    for job in ended:
        released.pop(job.id, None)
    return Consequences(ended, tuple(released.values()), tuple(pending))


def resume(connection: sqlite3.Connection, now: float) -> None:
    """Apply ends that were recorded by other means, such as an import, while no server ran."""
    jobs = [job_of(row) for row in connection.execute(ENDED).fetchall()]
    follow_up(connection, jobs, now, sys.maxsize)


def reason(on_id: int, status: JobStatus) -> str:
    """Return why a job fails that needed the success of another one."""
    if status is JobStatus.CLEANED:
        return f"The results of job {on_id}, which it needs, were removed after the retention time"
    return f"Job {on_id}, which had to complete before it, is {status}"
