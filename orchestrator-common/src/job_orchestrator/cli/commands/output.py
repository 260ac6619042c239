"""Commands about the output of jobs: logs, download."""

import asyncio
import sys
from contextlib import aclosing
from pathlib import Path

import click

from job_orchestrator.cli.commands.arguments import (
    array_option,
    job_id,
    job_or_array,
    one_of,
    target,
)
from job_orchestrator.cli.commands.arrays import download_array
from job_orchestrator.cli.params import WholeNumber
from job_orchestrator.cli.session import Session, command
from job_orchestrator.cli.wait import download_to, log_blocks, print_log
from job_orchestrator.sdk import LogStream, Refused

STREAMS: tuple[LogStream, ...] = ("stdout", "stderr")


@click.command()
@job_id
@click.option("-f", "--follow", is_flag=True, help="Continue until the job has ended.")
@click.option(
    "--stream",
    type=click.Choice(STREAMS),
    help="Print only this stream. Default: both, standard error to standard error.",
)
@click.option("--stderr", is_flag=True, help="The same as --stream stderr.")
@click.option(
    "--offset",
    metavar="BYTES",
    type=WholeNumber("number of bytes", 0),
    default=0,
    help="Skip this many bytes of the stream.",
)
@command
async def logs(
    session: Session,
    job_id: int,
    follow: bool,
    stream: LogStream | None,
    stderr: bool,
    offset: int,
) -> None:
    """Print the output of a job: standard output and standard error, each to its own."""
    if follow:
        session.interrupt_note = f"Job {job_id} continues. Cancel it: jo cancel {job_id}"
    chosen = "stderr" if stderr else stream
    if chosen is None and offset:
        raise click.UsageError("--offset needs --stream, because each stream has its own bytes.")

    async def print_stream(each: LogStream) -> None:
        if not session.json:
            is_alone = each == chosen or each == "stdout"
            to = sys.stdout if is_alone else sys.stderr
            await print_log(session, job_id, each, to, offset=offset, follow=follow)
            return
        blocks = log_blocks(session, job_id, each, offset=offset, follow=follow)
        async with aclosing(blocks):
            async for block in blocks:
                session.show({"stream": each, "text": block.decode("utf-8", "replace")})

    if chosen is not None:
        await print_stream(chosen)
    elif follow:
        async with asyncio.TaskGroup() as both:
            for each in STREAMS:
                both.create_task(print_stream(each))
    else:
        for each in STREAMS:
            await print_stream(each)


@click.command()
@job_or_array
@array_option
@target
@click.option("--partial", is_flag=True, help="Download the current files of a running job.")
@command
async def download(
    session: Session,
    job_id: int | None,
    array_id: int | None,
    output: Path | None,
    partial: bool,
) -> None:
    """Download the results of a job, or the output of a failed one.

    With --array the results of all completed tasks, in a folder for each index.
    """
    job_id = one_of(job_id, array_id)
    if array_id is not None:
        if partial:
            raise click.UsageError("--partial is about one job: name a task instead of --array.")
        path = output or Path(f"array-{array_id}.zip")
        await download_array(session, array_id, path)
        if session.json:
            session.show({"array": array_id, "output": str(path)})
        return
    job = await session.client.job(job_id)
    if not job.has_ended and not partial:
        raise Refused(
            f"Job {job_id} is {job.status}. Wait for it: jo wait {job_id} -o OUT; "
            "or download its current files with --partial"
        )
    path = output or Path(f"job-{job_id}.zip")
    await download_to(session, job, path, partial=partial)
    if session.json:
        session.show({"id": job_id, "status": job.status, "output": str(path)})
