"""Formatting of numbers, sizes and times for people."""

from datetime import UTC, datetime

from job_orchestrator.sdk import Job


def duration(seconds: float | None) -> str:
    """Format seconds: ``0.4 s``, ``12 s``, ``3:05``, ``2:03:04``, ``3 d 4 h``; ``-`` for None."""
    if seconds is None:
        return "-"
    if seconds < 10:
        return f"{max(seconds, 0):.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} d {hours % 24} h"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def size(count: int | None) -> str:
    """Format a number of bytes with a unit; ``-`` for None."""
    if count is None:
        return "-"
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def moment(time: datetime | None) -> str:
    """Format a time in the local time zone; ``-`` for None."""
    return time.astimezone().strftime("%Y-%m-%d %H:%M:%S") if time else "-"


def waited_s(job: Job) -> float:
    """Return the seconds from the submission of a job to its start, or until now."""
    return ((job.started_at or job.ended_at or datetime.now(UTC)) - job.created_at).total_seconds()


def ran_s(job: Job) -> float | None:
    """Return the seconds that a job has run, so far; None if it has not started."""
    if job.ran_s is not None or job.started_at is None:
        return job.ran_s
    return ((job.ended_at or datetime.now(UTC)) - job.started_at).total_seconds()
