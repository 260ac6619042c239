"""Commands about single jobs: submit, status, wait, logs, download, cancel."""

import sys
from contextlib import aclosing
from pathlib import Path

import click

from job_orchestrator.cli.params import Seconds, WholeNumber
from job_orchestrator.cli.session import Session, command
from job_orchestrator.cli.wait import (
    check_target,
    download_to,
    log_blocks,
    print_log,
    report_end,
    wait_for_end,
)
from job_orchestrator.sdk import LogStream, Refused

JOB = WholeNumber("job id", 0)

job_id = click.argument("job_id", metavar="JOB", type=JOB)
target = click.option(
    "-o",
    "--output",
    metavar="OUT.zip|DIR",
    type=click.Path(path_type=Path),
    help="Write the results to a ZIP, or unpack them into a new folder.",
)
timeout = click.option(
    "--timeout",
    "timeout_s",
    metavar="SECONDS",
    type=Seconds(),
    help="Give up after this time; the job continues.",
)


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--service",
    required=True,
    envvar="JO_SERVICE",
    show_envvar=True,
    help="Service that runs the job.",
)
@click.option(
    "--user",
    type=int,
    envvar="JO_USER",
    show_envvar=True,
    help="Owner of the job; default: the user of the token.",
)
@click.option("--name", help="Name of the job for people, up to 200 characters.")
@click.option("--tag", help="Word to filter lists by, up to 100 characters.")
@click.option(
    "--priority",
    type=WholeNumber("priority", -100, 100),
    help="Jobs of a user with a higher priority start first (default 0).",
)
@click.option("--time-limit", metavar="TIME", help="End the job after this time: 30s, 5m, 2h.")
@click.option("--wait", is_flag=True, help="Wait until the job has ended.")
@click.option(
    "-f",
    "--follow",
    is_flag=True,
    help="Print the output of the job while it runs; implies --wait.",
)
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

    A single folder is the job's folder. Several paths are copied into the job's folder as `cp -r`
    would. Prints the id of the job. With --wait, --follow or -o, jo waits until the job has ended
    and exits with the job's own exit status.
    """
    waits = wait or follow or output is not None
    if output is not None:
        await check_target(output)
    user_id = await _user(session, user)
    session.interrupt_note = "The upload was not finished: no job was created"
    with session.progress_bar("Uploading") as progress:
        submitted = await session.client.submit(
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
            session.show(submitted)
        else:
            click.echo(submitted.id)
        return None
    if not session.json:
        session.say(f"Submitted as job {submitted.id}")
    ended = await wait_for_end(session, submitted.id, follow=follow)
    return await report_end(session, ended, output)


async def _user(session: Session, user: int | None) -> int:
    if user is None:
        user = (await session.client.whoami()).user_id if session.token else None
    if user is None:
        raise click.UsageError(
            "Missing option '--user' (env var: 'JO_USER'), the owner of the job."
        )
    return user


@click.command()
@job_id
@command
async def status(session: Session, job_id: int) -> None:
    """Show a job: its state, the reason, its queue position.

    Also shows its history: each state of the job, and for how long it lasted.
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
    """Wait until a job has ended. The exit status is the job's own."""
    if output is not None:
        await check_target(output)
    job = await wait_for_end(session, job_id, follow=False, timeout_s=timeout_s)
    return await report_end(session, job, output)


@click.command()
@job_id
@click.option("-f", "--follow", is_flag=True, help="Continue until the job has ended.")
@click.option("--stderr", is_flag=True, help="Print standard error instead of standard output.")
@click.option(
    "--offset",
    metavar="BYTES",
    type=WholeNumber("number of bytes", 0),
    default=0,
    help="Skip this many bytes.",
)
@command
async def logs(session: Session, job_id: int, follow: bool, stderr: bool, offset: int) -> None:
    """Print the output of a job."""
    if follow:
        session.interrupt_note = f"Job {job_id} continues. Cancel it: jo cancel {job_id}"
    stream: LogStream = "stderr" if stderr else "stdout"
    if session.json:
        blocks = log_blocks(session, job_id, stream, offset=offset, follow=follow)
        async with aclosing(blocks):
            async for block in blocks:
                session.show({"stream": stream, "text": block.decode("utf-8", "replace")})
        return
    await print_log(session, job_id, stream, sys.stdout, offset=offset, follow=follow)


@click.command()
@job_id
@target
@click.option("--partial", is_flag=True, help="Download the current files of a running job.")
@command
async def download(session: Session, job_id: int, output: Path | None, partial: bool) -> None:
    """Download the results of a job, or the output of a failed one."""
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


@click.command()
@click.argument("job_ids", metavar="JOB…", nargs=-1, required=True, type=JOB)
@command
async def cancel(session: Session, job_ids: tuple[int, ...]) -> None:
    """Cancel jobs. On return, all their processes have ended."""
    for job_id in job_ids:
        session.interrupt_note = (
            f"The server may still cancel job {job_id}. Check with: jo status {job_id}"
        )
        cancelled = await session.client.cancel(job_id)
        if session.json:
            session.show(cancelled)
        else:
            click.echo(f"Job {job_id} is {cancelled.status}")
