"""Commands about single jobs: submit, status, wait, logs, download, cancel."""

import asyncio
import sys
from contextlib import aclosing
from pathlib import Path

import click

from job_orchestrator.cli import exit_codes
from job_orchestrator.cli.completion import (
    complete_jobs,
    complete_services,
    complete_unended_jobs,
)
from job_orchestrator.cli.params import Seconds, WholeNumber, check_patterns, parse_job_ids
from job_orchestrator.cli.session import Session, command, report_failure
from job_orchestrator.cli.wait import (
    check_target,
    download_to,
    log_blocks,
    print_log,
    report_end,
    wait_for_end,
)
from job_orchestrator.sdk import (
    ApiError,
    JobStatus,
    LogStream,
    NotAuthorized,
    Refused,
    ResultKind,
    ServerUnavailable,
    UnusableFiles,
)

JOB = WholeNumber("job id", 0)
RESULT_KINDS: tuple[ResultKind, ...] = ("all", "new")
STREAMS: tuple[LogStream, ...] = ("stdout", "stderr")

job_id = click.argument("job_id", metavar="JOB", type=JOB, shell_complete=complete_jobs)
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
    shell_complete=complete_services,
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
@click.option(
    "--cpus", type=float, metavar="NUMBER", help="CPUs that the job needs, such as 4 or 0.5."
)
@click.option("--memory", metavar="SIZE", help="Memory that the job needs: 512MB, 4GB.")
@click.option("--gpus", type=WholeNumber("gpus", 0, 1000), help="GPUs that the job needs.")
@click.option(
    "--outputs",
    metavar="GLOB",
    multiple=True,
    callback=check_patterns,
    help="Files that the results have, such as 'out/*.csv'; may be repeated. Default: all.",
)
@click.option(
    "--results",
    type=click.Choice(RESULT_KINDS),
    help="Whether the results have all files, or only those that the script made or changed.",
)
@click.option(
    "--after",
    metavar="JOB,…",
    callback=parse_job_ids,
    help="Start when these jobs have completed, with their results in .inputs/JOB/.",
)
@click.option(
    "--afterany",
    metavar="JOB,…",
    callback=parse_job_ids,
    help="Start when these jobs have ended, in any state.",
)
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
    cpus: float | None,
    memory: str | None,
    gpus: int | None,
    outputs: tuple[str, ...],
    results: ResultKind | None,
    after: tuple[int, ...],
    afterany: tuple[int, ...],
    wait: bool,
    follow: bool,
    output: Path | None,
) -> int | None:
    """Submit a job: a folder with a run.sh, or run.sh and other files.

    A single folder is the job's folder. Several paths are copied into the job's folder as `cp -r`
    would. Prints the id of the job. With --wait, --follow or -o, jo waits until the job has ended
    and exits with the job's own exit status. With --follow, standard output is that of the job, and
    the first line on standard error says the id: "Submitted as job 7".
    """
    waits = wait or follow or output is not None
    if output is not None:
        await check_target(output)
    user_id = await _user(session, user)
    session.interrupt_note = "The upload was not finished: no job was created"
    try:
        with session.progress_bar("Uploading") as progress:
            submitted = await session.client.submit(
                service,
                files,
                user_id=user_id,
                name=name,
                tag=tag,
                priority=priority,
                time_limit=time_limit,
                cpus=cpus,
                memory=memory,
                gpus=gpus,
                outputs=outputs,
                results=results,
                after=after,
                afterany=afterany,
                progress=progress,
            )
    except UnusableFiles:
        raise
    except Refused as error:
        raise await session.unknown_service(service) or error from None
    if not waits:
        if session.json:
            session.show(submitted)
        else:
            click.echo(submitted.id)
        return None
    if not session.json:
        session.say(f"Submitted as job {submitted.id}")
        if not follow:
            click.echo(submitted.id)
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
@click.argument(
    "job_ids",
    metavar="JOB…",
    nargs=-1,
    required=True,
    type=JOB,
    shell_complete=complete_unended_jobs,
)
@command
async def cancel(session: Session, job_ids: tuple[int, ...]) -> int:
    """Cancel jobs. On return, all their processes have ended.

    Exit status 75: a machine does not answer at present; its job is cancelled as soon as it does.
    If a job can't be cancelled, the other ones are cancelled nevertheless. The exit status is that
    of the first failure.
    """
    code = 0
    for job_id in dict.fromkeys(job_ids):
        session.interrupt_note = (
            f"The server may still cancel job {job_id}. Check with: jo status {job_id}"
        )
        try:
            cancelled = await session.client.cancel(job_id)
        except (ServerUnavailable, NotAuthorized):
            raise  # it would be the same for the other jobs
        except ApiError as error:
            failed = report_failure(error, as_json=session.json, id=job_id)
            code = code or failed
            continue
        if session.json:
            session.show(cancelled)
        else:
            why = "" if cancelled.status is JobStatus.KILLED else f". {cancelled.message}"
            click.echo(f"Job {job_id} is {cancelled.status}{why}")
        if cancelled.status is not JobStatus.KILLED:
            code = code or exit_codes.TRY_LATER
    return code
