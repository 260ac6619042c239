"""Traces of jobs, and files of them in Standard Workload Format."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from job_orchestrator.common.errors import DomainError

FIELDS = 18
"""Fields of a line in Standard Workload Format, separated by blanks."""


class TraceInvalid(DomainError):
    """The trace can't be replayed. The message names the line."""


@dataclass(frozen=True)
class TraceJob:
    """A job of a trace. Times are in seconds."""

    user_id: int
    arrival_s: float
    run_s: float
    service: str = "trace"
    priority: int = 0


def read_swf(lines: Iterable[str]) -> list[TraceJob]:
    """Read a trace in Standard Workload Format. Jobs without a user or a run time are left out.

    Each job counts as one slot, however many processors it had. Raises ``TraceInvalid``.
    """
    return in_order(_swf_jobs(lines))


def _swf_jobs(lines: Iterable[str]) -> Iterator[TraceJob]:
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if not fields or fields[0].startswith(";"):
            continue
        if len(fields) != FIELDS:
            raise TraceInvalid(f"Line {number} has {len(fields)} fields, not {FIELDS}")
        try:
            arrival_s, run_s, user_id = float(fields[1]), float(fields[3]), int(fields[11])
        except ValueError as error:
            raise TraceInvalid(f"Line {number}: {error}") from error
        if arrival_s >= 0 and run_s > 0 and user_id >= 0:
            yield TraceJob(user_id, arrival_s, run_s)


def write_swf(jobs: Sequence[TraceJob]) -> str:
    """Return a trace in Standard Workload Format. Services and priorities are lost."""
    lines = ["; Standard Workload Format: job, submit, wait, run, processors, …, user, …"]
    for number, job in enumerate(jobs, start=1):
        fields = [number, round(job.arrival_s), -1, round(job.run_s), 1] + [-1] * 6
        lines.append(" ".join(map(str, [*fields, job.user_id, *[-1] * 6])))
    return "\n".join(lines) + "\n"


def in_order(jobs: Iterable[TraceJob]) -> list[TraceJob]:
    """Return jobs in the order of their arrival, with the first one at second 0."""
    ordered = sorted(jobs, key=lambda job: job.arrival_s)
    begin_s = ordered[0].arrival_s if ordered else 0.0
    return [replace(job, arrival_s=job.arrival_s - begin_s) for job in ordered]


def at_load(jobs: Sequence[TraceJob], slots: int, load: float) -> list[TraceJob]:
    """Compress or stretch the arrivals: the jobs are ``load`` times what ``slots`` can run."""
    span_s = jobs[-1].arrival_s if jobs else 0.0
    if span_s <= 0:
        return list(jobs)
    present = sum(job.run_s for job in jobs) / (span_s * slots)
    return [replace(job, arrival_s=job.arrival_s * present / load) for job in jobs]
