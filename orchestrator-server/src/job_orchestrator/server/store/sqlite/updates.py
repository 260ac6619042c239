"""Updates of jobs. Each is one compare-and-set on the status, and mostly on the attempt."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from job_orchestrator.common.status import FINAL_JOB, JobStatus, origins
from job_orchestrator.server.model import Job, StoredOutput
from job_orchestrator.server.store.sqlite.clients.unconfirmed import (
    ADD_ABANDONED,
    ADD_ACKNOWLEDGEMENT,
)
from job_orchestrator.server.store.sqlite.connection import Values
from job_orchestrator.server.store.sqlite.contents import ADD_RESULT
from job_orchestrator.server.store.sqlite.queue.dependencies import (
    NO_CONSEQUENCES,
    Consequences,
    follow_up,
)
from job_orchestrator.server.store.sqlite.queue.usage import give_back
from job_orchestrator.server.store.sqlite.rows import (
    COLUMNS,
    IS_DISPATCHED,
    IS_ENDED,
    job_of,
    status_in,
)


@dataclass(frozen=True)
class Update:
    """One statement that changes jobs and returns them.

    ``abandoned`` holds the values of an abandoned key, ``acknowledgement`` those of an
    acknowledgement, and ``result`` the results of a job; each is added if a job is changed.
    ``ends_attempt`` is the time at which the jobs give back their slots; with ``may_be_queued``
    those that have a client.
    ``changes_status`` is false for a change within a status. ``durable`` is true for a change that
    users or clients act upon, false for one that is derived from the clients.
    """

    statement: str
    values: Values
    abandoned: Sequence[object] | None = None
    acknowledgement: Sequence[object] | None = None
    result: bytes | None = None
    ends_attempt: float | None = None
    may_be_queued: bool = False
    changes_status: bool = True
    durable: bool = True

    def apply(self, connection: sqlite3.Connection, half_life_s: float) -> "Applied":
        """Run the statement, and apply the ends of jobs to those that wait for them."""
        rows = connection.execute(self.statement, self.values).fetchall()
        if rows and self.abandoned is not None:
            connection.execute(ADD_ABANDONED, self.abandoned)
        if rows and self.acknowledgement is not None:
            connection.execute(ADD_ACKNOWLEDGEMENT, self.acknowledgement)
        if rows and self.result is not None:
            ((job_id, *_),) = rows
            connection.execute(ADD_RESULT, (job_id, self.result))
        jobs = [job_of(row) for row in rows]
        if self.ends_attempt is not None:
            for job in jobs:
                if job.client is not None or not self.may_be_queued:
                    give_back(connection, job, self.ends_attempt, half_life_s)
        if self.ends_attempt is None:
            return Applied(jobs)
        return Applied(jobs, follow_up(connection, jobs, self.ends_attempt))


class Applied(NamedTuple):
    """Jobs that an update has changed, and what followed for jobs that wait for them."""

    jobs: Sequence[Job]
    consequences: Consequences = NO_CONSEQUENCES


def transition(
    job: Job,
    wanted: JobStatus,
    message: str,
    now: float,
    *,
    at: float,
    dest_id: int | None,
    exit_code: int | None,
    output: StoredOutput | None,
    acknowledge: int | None,
    run_s: float | None,
) -> Update:
    """Change the status of ``job`` to ``wanted``. The change happened ``at`` this time.

    A time before the previous change, which another clock may have given, is moved to it. No script
    has run for longer than its job exists.
    """
    statement = f"""
        UPDATE jobs SET status = :wanted, message = :message, changed_at = max(:at, changed_at),
            dest_id = coalesce(:dest_id, dest_id), exit_code = coalesce(:exit_code, exit_code),
            run_s = coalesce(min(:run_s, max(:at - created_at, 0)), run_s),
            has_output = has_output OR :output_bytes IS NOT NULL,
            output_bytes = coalesce(:output_bytes, output_bytes),
            output_sha256 = coalesce(:output_sha256, output_sha256),
            started_at = CASE WHEN :runs OR (:ran AND {IS_DISPATCHED})
                THEN coalesce(started_at, max(:at, changed_at)) ELSE started_at END,
            ended_at = CASE WHEN :ended THEN max(:at, changed_at) ELSE ended_at END
        WHERE id = :id AND attempt = :attempt AND {status_in(_origins(wanted))}
        RETURNING {COLUMNS}"""  # noqa: S608
    values = {
        "id": job.id,
        "attempt": job.attempt,
        "wanted": wanted,
        "message": message,
        "dest_id": dest_id,
        "exit_code": exit_code,
        "run_s": run_s,
        "output_bytes": output and output.size,
        "output_sha256": output and output.sha256,
        "runs": wanted is JobStatus.RUNNING,
        # The server did not see the job Running, or that change is not written yet.
        "ran": wanted in (JobStatus.COMPLETED, JobStatus.FAILED),
        "ended": wanted in FINAL_JOB,
        "at": at,
    }
    return Update(
        statement,
        values,
        acknowledgement=_acknowledgement(job, acknowledge, now),
        result=None if output is None else output.content,
        ends_attempt=now if wanted in FINAL_JOB or wanted is JobStatus.QUEUED else None,
        may_be_queued=True,
        durable=wanted in FINAL_JOB,
    )


def _origins(wanted: JobStatus) -> frozenset[JobStatus]:
    """Return the states from which a message about an attempt leads to ``wanted``.

    A queued job fails only by its dependencies: a late message about the attempt that was given up
    last must not end it.
    """
    found = origins(wanted)
    return found - {JobStatus.QUEUED} if wanted is JobStatus.FAILED else found


def explain(job: Job, message: str, now: float) -> Update:
    """Replace the reason of a Submitted or Running job."""
    statement = f"""
        UPDATE jobs SET message = :message, changed_at = :now
        WHERE id = :id AND attempt = :attempt AND status = :status AND message = :before
            AND status IN ('Submitted', 'Running')
        RETURNING {COLUMNS}"""  # noqa: S608
    values = {
        "id": job.id,
        "attempt": job.attempt,
        "status": job.status,
        "message": message,
        "before": job.message,
        "now": now,
    }
    return Update(statement, values, changes_status=False, durable=False)


def requeue(
    job: Job,
    why: str,
    now: float,
    *,
    delay_s: float,
    max_attempts: int,
    counts: bool,
    may_still_run: bool,
) -> Update:
    """Return ``job`` to the queue, or end it if this was its last attempt."""
    statement = f"""
        UPDATE jobs SET failures = failures + :counts,
            status = CASE WHEN kill_requested THEN 'Killed'
                WHEN failures + :counts >= :max_attempts THEN 'Failed' ELSE 'Queued' END,
            ended_at = CASE WHEN kill_requested OR failures + :counts >= :max_attempts
                THEN max(:now, coalesce(started_at, created_at)) ELSE NULL END,
            message = CASE WHEN kill_requested THEN 'Terminated on request' ELSE :why END,
            started_at = CASE WHEN kill_requested OR failures + :counts >= :max_attempts
                THEN started_at ELSE NULL END, run_s = NULL,
            not_before = :now + :delay, changed_at = :now,
            client_url = NULL, dest_id = NULL
        WHERE id = :id AND attempt = :attempt
            AND {status_in(origins(JobStatus.QUEUED))}
        RETURNING {COLUMNS}"""  # noqa: S608
    values = {
        "id": job.id,
        "attempt": job.attempt,
        "counts": int(counts),
        # An attempt that doesn't count never ends a job, even if the job has no attempt left.
        "max_attempts": max_attempts if counts else job.failures + 1,
        "why": why,
        "delay": delay_s,
        "now": now,
    }
    abandoned = (job.client, job.key, now) if may_still_run else None
    return Update(statement, values, abandoned, ends_attempt=now)


def request_kill(job_id: int) -> Update:
    """Record that a job must be terminated, unless it has ended."""
    statement = f"""
        UPDATE jobs SET kill_requested = 1 WHERE id = ?
            AND {status_in(origins(JobStatus.KILLED))} RETURNING {COLUMNS}"""  # noqa: S608
    return Update(statement, (job_id,), changes_status=False)


def change_queued(job_id: int, held: bool | None, priority: int | None) -> Update:
    """Hold or release a queued job, or change its priority. None: as before."""
    statement = f"""
        UPDATE jobs SET held = coalesce(:held, held), priority = coalesce(:priority, priority)
        WHERE id = :id AND status = 'Queued' RETURNING {COLUMNS}"""  # noqa: S608
    return Update(
        statement, {"id": job_id, "held": held, "priority": priority}, changes_status=False
    )


def keep_output(job: Job, output: StoredOutput, now: float) -> Update:
    """Record that the output of an ended job is stored."""
    statement = f"""
        UPDATE jobs SET has_output = 1, output_bytes = ?, output_sha256 = ?
        WHERE id = ? AND attempt = ? AND {IS_ENDED} RETURNING {COLUMNS}"""  # noqa: S608
    return Update(
        statement,
        (output.size, output.sha256, job.id, job.attempt),
        acknowledgement=_acknowledgement(job, job.dest_id, now),
        result=output.content,
        changes_status=False,
    )


def _acknowledgement(job: Job, payload_id: int | None, now: float) -> Sequence[object] | None:
    if job.client is None or payload_id is None:
        return None
    return job.client, payload_id, now


def client_lost(client: str, why: str, now: float) -> Update:
    """Mark the jobs of a client as Unknown."""
    statement = f"""
        UPDATE jobs SET status = 'Unknown', message = :why, changed_at = :now
        WHERE client_url = :client_url AND {IS_DISPATCHED}
            AND {status_in(origins(JobStatus.UNKNOWN))} RETURNING {COLUMNS}"""  # noqa: S608
    return Update(statement, {"client_url": client, "why": why, "now": now}, durable=False)
