"""Commands about single files of a job's results: files, cat."""

import sys
from contextlib import aclosing

import click
import msgspec

from job_orchestrator.cli.completion import complete_jobs
from job_orchestrator.cli.formatting import size
from job_orchestrator.cli.params import WholeNumber
from job_orchestrator.cli.session import Session, command

job = click.argument(
    "job_id", metavar="JOB", type=WholeNumber("job id", 0), shell_complete=complete_jobs
)


@click.command()
@job
@command
async def files(session: Session, job_id: int) -> None:
    """List the files in the results of a job, with their sizes."""
    found = await session.client.files(job_id)
    if session.json:
        session.show(msgspec.to_builtins(found))
        return
    for file in found.files:
        # A script chooses the names: control characters must not reach the terminal.
        path = file.path if file.path.isprintable() else repr(file.path)
        click.echo(f"{size(file.size):>10}  {path}")
    if found.truncated:
        session.say("The list is incomplete; jo download gets all files")


@click.command()
@job
@click.argument("path")
@command
async def cat(session: Session, job_id: int, path: str) -> None:
    """Print one file of a job's results, byte by byte.

    PATH is a path that jo files lists.
    """
    async with aclosing(session.client.stream_file(job_id, path)) as blocks:
        async for block in blocks:
            sys.stdout.buffer.write(block)
    sys.stdout.buffer.flush()
