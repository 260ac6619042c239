"""Bars with rate and time left, on standard error, for those who watch."""

from collections.abc import Iterator
from contextlib import contextmanager

from job_orchestrator.cli.session import Session
from job_orchestrator.sdk import Progress as Callback


@contextmanager
def transfer(session: Session, what: str) -> Iterator[Callback | None]:
    """Show a bar while the block runs; yields what a call takes as ``progress``."""
    if not session.lively:
        yield None
        return
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=session.err,
        transient=True,
    ) as bar:
        task = bar.add_task(what, total=None)

        def update(done: int, total: int | None) -> None:
            bar.update(task, completed=done, total=total)

        yield update
