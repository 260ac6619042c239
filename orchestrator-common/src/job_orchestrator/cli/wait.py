"""Waiting for a job, live output, and what is left on disk when it has ended."""

import asyncio
import codecs
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import TextIO

from job_orchestrator.cli import exit_codes
from job_orchestrator.cli.formatting import duration, ran_s
from job_orchestrator.cli.progress import transfer
from job_orchestrator.cli.session import Session
from job_orchestrator.cli.unpacking import check_file, check_folder, unpack
from job_orchestrator.common.runtime.threads import in_thread
from job_orchestrator.sdk import Job, JobDetail, JobStatus, OutputNotFound
from job_orchestrator.sdk.client import LogStream


def goes_on(job_id: int) -> str:
    """What to tell a user who stops watching."""
    return (
        f"Job {job_id} goes on. End it: jo cancel {job_id}. "
        f"Watch it again: jo logs -f {job_id}. Wait for it: jo wait {job_id}"
    )


async def end_of(
    session: Session, job_id: int, *, follow: bool, timeout_s: float | None = None
) -> JobDetail:
    """Wait for a job's end; with ``follow`` print its output meanwhile. Raises ``ApiError``."""
    session.remains = goes_on(job_id)
    beside: list[asyncio.Task[None]] = []
    if follow:
        out = print_log(session, job_id, "stdout", sys.stdout, follow=True)
        err = print_log(session, job_id, "stderr", sys.stderr, follow=True)
        beside = [asyncio.create_task(out), asyncio.create_task(err)]
    elif session.lively:
        beside = [asyncio.create_task(_show_states(session, job_id))]
    try:
        job = await session.client.wait(job_id, timeout_s=timeout_s)
        if follow:
            await asyncio.gather(*beside)
    finally:
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
    session.remains = ""
    return job


async def _show_states(session: Session, job_id: int) -> None:
    """A line that says how the job is, until it has ended."""
    from rich.markup import escape

    with session.err.status(f"Job {job_id}") as line:
        async with aclosing(session.client.watch(job_id)) as changes:
            async for job in changes:
                why = f": {job.message}" if job.message else ""
                line.update(f"Job {job_id} is {job.status}{escape(why)} (Ctrl-C stops waiting)")


def log_of(
    session: Session, job_id: int, stream: LogStream, *, offset: int, follow: bool
) -> AsyncGenerator[bytes]:
    """Yield what the job prints; the user is told where a further run of it begins."""

    def tell(attempt: int) -> None:
        session.say_once(f"Job {job_id} is run again: what follows is attempt {attempt}")

    return session.client.logs(
        job_id, stream=stream, offset=offset, follow=follow, on_rerun=tell if follow else None
    )


async def print_log(
    session: Session,
    job_id: int,
    stream: LogStream,
    target: TextIO,
    *,
    offset: int = 0,
    follow: bool,
) -> None:
    """Print what the job prints. Bytes that are no UTF-8 are replaced. Raises ``ApiError``."""
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    blocks = log_of(session, job_id, stream, offset=offset, follow=follow)
    async with aclosing(blocks):
        async for block in blocks:
            # A terminal that is stopped, or a full pipe, must not stop the rest.
            await in_thread(_write, target, decode(block))


def _write(target: TextIO, text: str) -> None:
    target.write(text)
    target.flush()


async def check_target(target: Path) -> None:
    """Raise ``LocalStorageFailed`` if ``fetch`` can't put results there without loss."""
    await in_thread(check_file if target.suffix == ".zip" else check_folder, target)


async def fetch(session: Session, job: Job, target: Path, *, partial: bool = False) -> None:
    """Put a job's results at ``target``: a file if its name ends in .zip, else a folder.

    Of a job that is not Completed it is the output that there is. Raises ``ApiError``.
    """
    partial = partial or job.status is not JobStatus.COMPLETED
    await check_target(target)
    unpacked = target.suffix != ".zip"
    archive = target.with_name(f".{target.name}.{job.id}.zip") if unpacked else target
    try:
        with transfer(session, f"Fetching job {job.id}") as progress:
            await session.client.download(job.id, archive, partial=partial, progress=progress)
        if unpacked:
            count = await in_thread(unpack, archive, target)
            session.say(f"{count} files in {target}")
        else:
            session.say(f"Results in {target}")
    finally:
        if unpacked:
            await in_thread(archive.unlink, missing_ok=True)


async def finish(session: Session, job: JobDetail, target: Path | None) -> int:
    """Tell how a job has ended, fetch what there is of it, and return the exit status."""
    if session.json:
        session.show(job)
    else:
        ran = ran_s(job)
        took = "" if ran is None else f" after {duration(ran)}"
        why = "" if job.status is JobStatus.COMPLETED else f": {job.message}"
        session.say(f"Job {job.id} is {job.status}{took}{why}")
    if target is not None:
        try:
            await fetch(session, job, target)
        except OutputNotFound as error:
            session.say(f"There is nothing to fetch: {error}")
    return exit_codes.of_job(job)
