"""Conversion of the server's values to the messages that web apps read."""

from job_orchestrator.common.messages import jobs as messages
from job_orchestrator.common.messages import service
from job_orchestrator.common.messages.encoding import WireTime
from job_orchestrator.common.status import JobStatus
from job_orchestrator.server.jobs.reasons import reason_for
from job_orchestrator.server.jobs.statistics import Minute
from job_orchestrator.server.jobs.waiting.outlook import Outlook
from job_orchestrator.server.model import Job, Registration
from job_orchestrator.server.store.lists import Change


def view_of(job: Job, *, details: bool) -> messages.Job:
    """Return the message that shows ``job`` to web apps.

    ``details`` are for administrators: the details of reasons, and the client.
    """
    return messages.Job(
        id=job.id,
        user_id=job.user_id,
        service=job.service,
        status=job.status,
        message=reason_for(job.message, details=details),
        name=job.name,
        tag=job.tag,
        priority=job.priority,
        attempt=job.attempt,
        exit_code=job.exit_code,
        client=job.client if details else None,
        time_limit_s=job.time_limit_s,
        created_at=WireTime.at(job.created_at),
        started_at=None if job.started_at is None else WireTime.at(job.started_at),
        ended_at=None if job.ended_at is None else WireTime.at(job.ended_at),
        has_output=job.has_output and job.status is not JobStatus.CLEANED,
        output_bytes=job.output_bytes,
        failures=job.failures,
        held=job.held,
        # SQLite may return a whole number of a REAL column as an integer.
        cpus=float(job.cpus),
        memory_bytes=job.memory_bytes,
        gpus=job.gpus,
        ran_s=None if job.ran_s is None else round(job.ran_s, 3),
    )


def step_of(change: Change, until: float, *, details: bool) -> messages.Step:
    """Return a step of a history that lasted until ``until``, in seconds since the epoch."""
    cleaned = change.to is JobStatus.CLEANED
    return messages.Step(
        at=WireTime.at(change.at),
        before=change.before,
        to=change.to,
        why=reason_for(change.why, details=details),
        seconds=None if cleaned else round(max(until - change.at, 0.0), 3),
    )


def minute_of(minute: Minute) -> service.Minute:
    """Return the message that shows the counts of one minute."""
    return service.Minute(
        at=WireTime.at(minute.number * 60),
        submitted=minute.submitted,
        completed=minute.completed,
        failed=minute.failed,
        cancelled=minute.cancelled,
        wait_s_mean=minute.mean_wait_s,
        wait_s_max=minute.longest_wait_s if minute.waits else None,
    )


def seen_at_of(registration: Registration | None) -> WireTime | None:
    """Return when a registered client was last connected; None for a configured one."""
    return None if registration is None else WireTime.at(registration.seen_at)


def position_of(outlook: Outlook) -> messages.QueuePosition:
    """Return the message that shows the position of a queued job."""
    return messages.QueuePosition(
        ahead=outlook.ahead, estimated_wait_s=outlook.wait_s, reason=outlook.hindrance
    )


def waiting_of(outlook: Outlook) -> messages.Waiting:
    """Return the message that shows why a queued job waits, and until when."""
    start = None
    if outlook.forecast is not None:
        p50, p90 = outlook.forecast
        start = messages.ExpectedStart(WireTime.at(p50), WireTime.at(p90))
    return messages.Waiting(reason=outlook.reason, ahead=outlook.ahead, expected_start=start)
