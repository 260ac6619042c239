"""Wait for a job, print its output, and download its results."""

import asyncio
import codecs
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import TextIO

from job_orchestrator.cli import exit_codes
from job_orchestrator.cli.formatting import duration, ran_s
from job_orchestrator.cli.session import Session
from job_orchestrator.cli.unpacking import check_folder, refuse_existing_file, unpack
from job_orchestrator.sdk import Job, JobDetail, JobStatus, LogStream, OutputNotFound
from job_orchestrator.sdk.threads import in_thread


async def wait_for_end(
    session: Session, job_id: int, *, follow: bool, timeout_s: float | None = None
) -> JobDetail:
    """Wait until a job has ended. With ``follow``, print its output. Raises ``ApiError``."""
    session.interrupt_note = (
        f"Job {job_id} continues. Cancel it: jo cancel {job_id}. "
        f"Follow its output: jo logs -f {job_id}. Wait for it: jo wait {job_id}"
    )
    displays: list[asyncio.Task[None]] = []
    if follow:
        out = print_log(session, job_id, "stdout", sys.stdout, follow=True)
        err = print_log(session, job_id, "stderr", sys.stderr, follow=True)
        displays = [asyncio.create_task(out), asyncio.create_task(err)]
    elif session.is_interactive:
        displays = [asyncio.create_task(_show_state(session, job_id))]
    try:
        job = await session.client.wait(job_id, timeout_s=timeout_s)
        if follow:
            await asyncio.gather(*displays)
    finally:
        for task in displays:
            task.cancel()
        await asyncio.gather(*displays, return_exceptions=True)
    session.interrupt_note = ""
    return job


async def _show_state(session: Session, job_id: int) -> None:
    """Show the state of the job on one line, until it has ended."""
    from rich.markup import escape

    with session.err.status(f"Job {job_id}") as line:
        async with aclosing(session.client.watch(job_id)) as changes:
            async for job in changes:
                why = f": {job.message}" if job.message else ""
                line.update(f"Job {job_id} is {job.status}{escape(why)} (Ctrl-C stops waiting)")


def log_blocks(
    session: Session, job_id: int, stream: LogStream, *, offset: int, follow: bool
) -> AsyncGenerator[bytes]:
    """Yield the output of a job. A message says where the output of another attempt begins."""

    def report_rerun(attempt: int) -> None:
        session.say_once(f"Job {job_id} is run again: the output of attempt {attempt} follows")

    return session.client.logs(
        job_id,
        stream=stream,
        offset=offset,
        follow=follow,
        on_rerun=report_rerun if follow else None,
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
    """Print the output of a job. Invalid UTF-8 is replaced. Raises ``ApiError``."""
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    blocks = log_blocks(session, job_id, stream, offset=offset, follow=follow)
    async with aclosing(blocks):
        async for block in blocks:
            # In a thread: a stopped terminal or a full pipe must not block the event loop.
            await in_thread(_write, target, decode(block))


def _write(target: TextIO, text: str) -> None:
    target.write(text)
    target.flush()


async def check_target(target: Path) -> None:
    """Raise ``LocalStorageFailed`` if ``download_to`` would overwrite something at ``target``."""
    await in_thread(refuse_existing_file if target.suffix == ".zip" else check_folder, target)


async def download_to(session: Session, job: Job, target: Path, *, partial: bool = False) -> None:
    """Download a job's results to ``target``: a ZIP if its name ends in .zip, otherwise a folder.

    Of a job that is not Completed, downloads the output that exists. Raises ``ApiError``.
    """
    partial = partial or job.status is not JobStatus.COMPLETED
    await check_target(target)
    unpacked = target.suffix != ".zip"
    archive = target.with_name(f".{target.name}.{job.id}.zip") if unpacked else target
    try:
        with session.progress_bar(f"Downloading job {job.id}") as progress:
            # A ZIP to unpack may be one that an interrupted download has left.
            await session.client.download(
                job.id, archive, partial=partial, overwrite=unpacked, progress=progress
            )
        if unpacked:
            count = await in_thread(unpack, archive, target)
            session.say(f"{count} files in {target}")
        else:
            session.say(f"Results in {target}")
    finally:
        if unpacked:
            await in_thread(archive.unlink, missing_ok=True)


async def report_end(session: Session, job: JobDetail, target: Path | None) -> int:
    """Print how a job has ended, download its output to ``target``, return the exit status."""
    if session.json:
        session.show(job)
    else:
        ran = ran_s(job)
        took = "" if ran is None else f" after {duration(ran)}"
        why = "" if job.status is JobStatus.COMPLETED else f": {job.message}"
        session.say(f"Job {job.id} is {job.status}{took}{why}")
    if target is not None:
        try:
            await download_to(session, job, target)
        except OutputNotFound as error:
            session.say(f"There is nothing to download: {error}")
    return exit_codes.of_job(job)
