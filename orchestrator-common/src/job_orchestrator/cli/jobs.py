"""The commands about single jobs: submit, status, wait, logs, download, cancel."""

import sys
from contextlib import aclosing
from pathlib import Path

import click

from job_orchestrator.cli.progress import transfer
from job_orchestrator.cli.session import Session, command
from job_orchestrator.cli.wait import (
    check_target,
    end_of,
    fetch,
    finish,
    log_of,
    print_log,
)
from job_orchestrator.common.config.numbers import Seconds, Whole
from job_orchestrator.sdk import LogStream, Refused

JOB = Whole("number of a job", 0)

job_id = click.argument("job_id", metavar="JOB", type=JOB)
target = click.option(
    "-o",
    "--output",
    metavar="OUT.zip|DIR",
    type=click.Path(path_type=Path),
    help="Put the results there: a ZIP, or unpacked into a new folder.",
)
timeout = click.option(
    "--timeout",
    "timeout_s",
    metavar="SECONDS",
    type=Seconds(),
    help="Wait at most so long.",
)


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--service", required=True, envvar="JO_SERVICE", show_envvar=True)
@click.option(
    "--user",
    type=int,
    envvar="JO_USER",
    show_envvar=True,
    help="Whose job it is; the token's user if it has one.",
)
@click.option("--name", help="A name for people, up to 200 characters.")
@click.option("--tag", help="A word to find jobs by, up to 100 characters.")
@click.option(
    "--priority",
    type=Whole("priority", -100, 100),
    help="Higher goes first, among this user's jobs (0).",
)
@click.option("--time-limit", metavar="TIME", help="End it after so long: 30s, 5m, 2h.")
@click.option("--wait", is_flag=True, help="Wait for its end.")
@click.option("-f", "--follow", is_flag=True, help="Print its output while it runs; waits, too.")
@target
@command
async def submit(
    session: Session,
    files: tuple[Path, ...],
    service: str,
    user: int | None,
    name: str | None,
    tag: str | None,
    priority: int | None,
    time_limit: str | None,
    wait: bool,
    follow: bool,
    output: Path | None,
) -> int | None:
    """Submit a job: a folder with a run.sh, or run.sh and other files.

    One folder is the job's folder. Several paths are copied into it as `cp -r` would. Prints the
    job's number. With --wait, --follow or -o it waits, and the exit status is the job's own.
    """
    waits = wait or follow or output is not None
    if output is not None:
        await check_target(output)
    user_id = await _user(session, user)
    session.remains = "The upload was not finished: no job was made"
    with transfer(session, "Uploading") as progress:
        done = await session.client.submit(
            service,
            files,
            user_id=user_id,
            name=name,
            tag=tag,
            priority=priority,
            time_limit=time_limit,
            progress=progress,
        )
    if not waits:
        if session.json:
            session.show(done)
        else:
            click.echo(done.id)
        return None
    if not session.json:
        session.say(f"Submitted as job {done.id}")
    return await finish(session, await end_of(session, done.id, follow=follow), output)


async def _user(session: Session, user: int | None) -> int:
    if user is None:
        user = (await session.client.whoami()).user_id if session.token else None
    if user is None:
        raise click.UsageError("Missing option '--user' (env var: 'JO_USER'): whose job is it?")
    return user


@click.command()
@job_id
@command
async def status(session: Session, job_id: int) -> None:
    """Show a job: its state and why, its place in the queue.

    Its history, too: each state that it had, and for how long.
    """
    job = await session.client.job(job_id)
    if session.json:
        session.show(job)
        return
    from job_orchestrator.cli.tables import history_table, job_card

    session.out.print(job_card(job))
    session.out.print()
    session.out.print(history_table(job))


@click.command()
@job_id
@timeout
@target
@command
async def wait(session: Session, job_id: int, timeout_s: float | None, output: Path | None) -> int:
    """Wait for the end of a job. The exit status is the job's own."""
    if output is not None:
        await check_target(output)
    job = await end_of(session, job_id, follow=False, timeout_s=timeout_s)
    return await finish(session, job, output)


@click.command()
@job_id
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended.")
@click.option("--stderr", is_flag=True, help="What it printed to standard error.")
@click.option(
    "--offset",
    metavar="BYTES",
    type=Whole("number of bytes", 0),
    default=0,
    help="Leave out so much.",
)
@command
async def logs(session: Session, job_id: int, follow: bool, stderr: bool, offset: int) -> None:
    """Print what a job has printed."""
    if follow:
        session.remains = f"Job {job_id} goes on. End it: jo cancel {job_id}"
    stream: LogStream = "stderr" if stderr else "stdout"
    if session.json:
        blocks = log_of(session, job_id, stream, offset=offset, follow=follow)
        async with aclosing(blocks):
            async for block in blocks:
                session.show({"stream": stream, "text": block.decode("utf-8", "replace")})
        return
    await print_log(session, job_id, stream, sys.stdout, offset=offset, follow=follow)


@click.command()
@job_id
@target
@click.option("--partial", is_flag=True, help="What there is now, of a running job.")
@command
async def download(session: Session, job_id: int, output: Path | None, partial: bool) -> None:
    """Fetch the results of a job, or what a failed one has left."""
    job = await session.client.job(job_id)
    if not job.ended and not partial:
        raise Refused(
            f"Job {job_id} is {job.status}. Wait for it: jo wait {job_id} -o OUT; "
            "or take what there is with --partial"
        )
    where = output or Path(f"job-{job_id}.zip")
    await fetch(session, job, where, partial=partial)
    if session.json:
        session.show({"id": job_id, "status": job.status, "output": str(where)})


@click.command()
@click.argument(
    "job_ids", metavar="JOB…", nargs=-1, required=True, type=Whole("number of a job", 0)
)
@command
async def cancel(session: Session, job_ids: tuple[int, ...]) -> None:
    """End jobs. When it returns, nothing of them runs any more."""
    for job_id in job_ids:
        session.remains = f"Job {job_id} may still be ended by the server: jo status {job_id}"
        done = await session.client.cancel(job_id)
        if session.json:
            session.show(done)
        else:
            click.echo(f"Job {job_id} is {done.status}")
