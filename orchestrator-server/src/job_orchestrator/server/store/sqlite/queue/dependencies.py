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

PREDECESSOR = "SELECT user_id, status, array_id FROM jobs WHERE id = ?"

# The id of an array is that of its first task.
FAILED_TASK = """
SELECT id, status FROM jobs
WHERE array_id = ? AND status IN ('Failed', 'Invalid', 'Killed', 'Cleaned') LIMIT 1
"""

UNENDED = "SELECT unended FROM arrays WHERE id = ?"

ADD = "INSERT INTO dependencies (on_id, on_array, job_id, needs_success) VALUES (?, ?, ?, ?)"

COUNT = f"""
UPDATE jobs SET open_dependencies = ? WHERE id = ? AND status = 'Queued' RETURNING {COLUMNS}
"""  # noqa: S608

FAIL_NEW = f"""
UPDATE jobs SET status = 'Failed', message = :why, changed_at = :now,
    ended_at = max(:now, created_at)
WHERE id BETWEEN :first AND :last AND status = 'Queued' RETURNING {COLUMNS}
"""  # noqa: S608

# A request to terminate the job was recorded first, so that it counts.
FAIL = f"""
UPDATE jobs SET status = CASE WHEN kill_requested THEN 'Killed' ELSE 'Failed' END,
    message = CASE WHEN kill_requested THEN 'Terminated on request' ELSE :why END,
    changed_at = :now, ended_at = max(:now, created_at)
WHERE id IN (SELECT job_id FROM dependencies
    WHERE on_id = :id AND on_array = :on_array AND job_id <= :last AND needs_success)
    AND status = 'Queued'
RETURNING {COLUMNS}
"""  # noqa: S608

RELEASE = f"""
UPDATE jobs SET open_dependencies = open_dependencies - 1
WHERE id IN (SELECT job_id FROM dependencies
    WHERE on_id = :id AND on_array = :on_array AND job_id <= :last)
    AND status = 'Queued'
RETURNING {COLUMNS}
"""  # noqa: S608

FORGET = """
DELETE FROM dependencies WHERE on_id = :id AND on_array = :on_array AND job_id <= :last
    AND (needs_success OR NOT :needed_only)
"""

ENDED = f"""
SELECT {columns_of("jobs")} FROM (SELECT DISTINCT on_id FROM dependencies WHERE NOT on_array)
CROSS JOIN jobs ON jobs.id = on_id WHERE jobs.ended_at IS NOT NULL
UNION ALL
SELECT {columns_of("jobs")} FROM (SELECT DISTINCT on_id FROM dependencies WHERE on_array)
CROSS JOIN jobs ON jobs.id = (
    SELECT max(id) FROM jobs WHERE array_id = on_id AND ended_at IS NOT NULL)
"""  # noqa: S608

WAITING = """
SELECT min(needs_success), max(needs_success), max(job_id), count(*) FROM (
    SELECT job_id, needs_success FROM dependencies WHERE on_id = :id AND on_array = :on_array
    AND (needs_success OR NOT :needed_only) ORDER BY job_id LIMIT :limit)
"""

ROOM = "SELECT max_active - (unended - waiting) FROM arrays WHERE id = ? AND waiting > 0"

HOLDING_BACK = "SELECT id FROM arrays WHERE waiting > 0"

RELEASE_TASKS = f"""
UPDATE jobs SET array_waits = 0, open_dependencies = open_dependencies - 1 WHERE id IN (
    SELECT id FROM jobs INDEXED BY jobs_held_back
    WHERE array_id = :array_id AND array_waits = 1 AND status = 'Queued' ORDER BY id LIMIT :room)
RETURNING {COLUMNS}
"""  # noqa: S608


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


class Waits(NamedTuple):
    """Open dependencies of new jobs: rows of ``dependencies``, without the id of the job.

    ``failure`` says why they fail instead; it is empty if they don't.
    """

    open: Sequence[tuple[int, bool, bool]]
    failure: str = ""


def evaluate(connection: sqlite3.Connection, options: JobOptions) -> Waits:
    """Find out which dependencies of new jobs are still open."""
    waits: list[tuple[int, bool, bool]] = []
    needed = set(options.after_success)
    for on_id in sorted({*options.after_success, *options.after_end}):
        _, word, array_id = connection.execute(PREDECESSOR, (on_id,)).fetchone()
        on_array = array_id == on_id
        if on_id in needed and (failure := _failure(connection, on_id, word, on_array)):
            return Waits((), failure)
        if not _has_ended(connection, on_id, word, on_array):
            waits.append((on_id, on_array, on_id in needed))
    return Waits(waits)


def _failure(connection: sqlite3.Connection, on_id: int, word: str, on_array: bool) -> str:
    if on_array:
        failed = connection.execute(FAILED_TASK, (on_id,)).fetchone()
        return reason(failed[0], JobStatus(failed[1])) if failed else ""
    status = JobStatus(word)
    return reason(on_id, status) if status.has_ended and status is not JobStatus.COMPLETED else ""


def _has_ended(connection: sqlite3.Connection, on_id: int, word: str, on_array: bool) -> bool:
    if on_array:
        ((unended,),) = connection.execute(UNENDED, (on_id,))
        return not unended
    return JobStatus(word).has_ended


def add_rows(connection: sqlite3.Connection, waits: Waits, job_ids: Sequence[int]) -> None:
    """Let new jobs wait for the ends that are still open."""
    for on_id, on_array, needed in waits.open:
        connection.executemany(ADD, ((on_id, on_array, job_id, needed) for job_id in job_ids))


def fail_new(
    connection: sqlite3.Connection, job_ids: Sequence[int], why: str, now: float
) -> Sequence[Job]:
    """End new jobs, whose ids follow each other, because a job that they need has failed."""
    values = {"first": job_ids[0], "last": job_ids[-1], "now": now, "why": why}
    return [job_of(row) for row in connection.execute(FAIL_NEW, values).fetchall()]


def connect(connection: sqlite3.Connection, job: Job, options: JobOptions, now: float) -> Job:
    """Let a job that was just added wait for its dependencies; return it as it is then.

    It fails instead if one of them has failed already.
    """
    waits = evaluate(connection, options)
    if waits.failure:
        return fail_new(connection, [job.id], waits.failure, now)[0]
    if not waits.open:
        return job
    add_rows(connection, waits, [job.id])
    (row,) = connection.execute(COUNT, (len(waits.open), job.id)).fetchall()
    return job_of(row)


class _FollowUp:
    """One transaction of ``follow_up``: what it has changed, and how many jobs it may change."""

    def __init__(self, connection: sqlite3.Connection, now: float, most: int) -> None:
        self._connection = connection
        self._now = now
        self.left = most
        self.ended: list[Job] = []
        self.released: dict[int, Job] = {}

    def apply(self, job: Job) -> Sequence[Job]:
        """Apply the end of a job. Returns the jobs that have ended because of it.

        If nothing is ``left`` afterwards, there may be more to apply.
        """
        why = "" if job.status is JobStatus.COMPLETED else reason(job.id, job.status)
        before = len(self.ended)
        self._take(job.id, on_array=False, why=why)
        if job.array_id is not None:
            self._release_tasks(job.array_id)
            failed = self._connection.execute(FAILED_TASK, (job.array_id,)).fetchone()
            if failed is not None:
                why = reason(failed[0], JobStatus(failed[1]))
                self._take(job.array_id, on_array=True, why=why, needed_only=True)
            ((unended,),) = self._connection.execute(UNENDED, (job.array_id,))
            if not unended:
                self._take(job.array_id, on_array=True, why=why if failed else "")
        return self.ended[before:]

    def _take(self, on_id: int, *, on_array: bool, why: str, needed_only: bool = False) -> None:
        """Fail (``why``) or release the jobs that wait for ``on_id``, as many as are left."""
        if self.left <= 0:
            return
        execute = self._connection.execute
        values: dict[str, object] = {"id": on_id, "on_array": on_array, "needed_only": needed_only}
        found = execute(WAITING, {**values, "limit": self.left}).fetchone()
        all_fail, any_fails, last, count = found
        self.left -= count
        if not count:
            return
        values |= {"last": last, "now": self._now, "why": why}
        if why and any_fails:
            self.ended += [job_of(row) for row in execute(FAIL, values).fetchall()]
        if not (why and (all_fail or needed_only)):
            rows = execute(RELEASE, values).fetchall()
            self.released |= {row[0]: job_of(row) for row in rows}
        execute(FORGET, values)

    def _release_tasks(self, array_id: int) -> None:
        jobs = release_tasks(self._connection, array_id)
        self.released |= {job.id: job for job in jobs}


def release_tasks(connection: sqlite3.Connection, array_id: int) -> Sequence[Job]:
    """Release the next tasks of an array, up to the number that may be active."""
    row = connection.execute(ROOM, (array_id,)).fetchone()
    if row is None or row[0] <= 0:
        return ()
    values = {"array_id": array_id, "room": row[0]}
    return [job_of(each) for each in connection.execute(RELEASE_TASKS, values).fetchall()]


def follow_up(
    connection: sqlite3.Connection, jobs: Sequence[Job], now: float, most: int = MAX_AT_ONCE
) -> Consequences:
    """Apply the ends of ``jobs`` to the jobs that wait for them, and so on down the chain.

    Stops after ``most`` jobs that wait.
    """
    work = _FollowUp(connection, now, most)
    pending = deque(job for job in jobs if job.status.has_ended)
    while pending and work.left > 0:
        failed = work.apply(pending[0])
        if work.left > 0:
            pending.popleft()
        pending += failed
    for job in work.ended:
        work.released.pop(job.id, None)
    return Consequences(work.ended, tuple(work.released.values()), tuple(pending))


def resume(connection: sqlite3.Connection, now: float) -> None:
    """Apply ends that were recorded by other means, such as an import, while no server ran."""
    jobs = [job_of(row) for row in connection.execute(ENDED).fetchall()]
    follow_up(connection, jobs, now, sys.maxsize)
    for (array_id,) in connection.execute(HOLDING_BACK).fetchall():
        release_tasks(connection, array_id)


def reason(on_id: int, status: JobStatus) -> str:
    """Return why a job fails that needed the success of another one."""
    if status is JobStatus.CLEANED:
        return f"The results of job {on_id}, which it needs, were removed after the retention time"
    return f"Job {on_id}, which had to complete before it, is {status}"
