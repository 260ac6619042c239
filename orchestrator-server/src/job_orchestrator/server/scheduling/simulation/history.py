"""Trace of the jobs that an installation still keeps."""

from pathlib import Path

from job_orchestrator.server.scheduling.simulation.trace import TraceJob
from job_orchestrator.server.store.sqlite.maintenance import kept_jobs


def read_history(database: Path) -> list[TraceJob]:
    """Read the jobs that have run, with their arrivals in seconds since the epoch."""
    with kept_jobs.opened(database) as connection:
        return [TraceJob(*row) for row in kept_jobs.runs(connection)]
