"""Commands about single jobs and arrays: submit, status, wait, cancel."""

from pathlib import Path

import click

from job_orchestrator.cli import exit_codes
from job_orchestrator.cli.commands.arguments import (
    JOB,
    array_option,
    job_id,
    job_or_array,
    one_of,
    target,
)
from job_orchestrator.cli.commands.arrays import cancel_array, wait_for_array
from job_orchestrator.cli.completion import (
    complete_services,
    complete_unended_jobs,
)
from job_orchestrator.cli.params import Seconds, WholeNumber, check_patterns, parse_job_ids
from job_orchestrator.cli.session import Session, command, report_failure
from job_orchestrator.cli.wait import (
    check_target,
    report_end,
    wait_for_end,
)
from job_orchestrator.sdk import (
    ApiError,
    JobStatus,
    NotAuthorized,
    Refused,
    ResultKind,
    ServerUnavailable,
    UnusableFiles,
)

RESULT_KINDS: tuple[ResultKind, ...] = ("all", "new")


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
@click.option(
    "--array",
    metavar="INDEXES",
    help="Submit an array, a task for each index: 1-100, 1,3,7-9, or 1-100%5: at most five run.",
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
    array: str | None,
    wait: bool,
    follow: bool,
    output: Path | None,
) -> int | None:
    """Submit a job: a folder with a run.sh, or run.sh and other files.

    A single folder is the job's folder. Several paths are copied into the job's folder as `cp -r`
    would. Prints the id of the job. With --wait, --follow or -o, jo waits until the job has ended
    and exits with the job's own exit status. With --follow, standard output is that of the job, and
    the first line on standard error says the id: "Submitted as job 7".

    With --array each task is a job. They have the same files, and their index in JO_ARRAY_INDEX.
    Prints the id of the array, which is that of its first task.
    """
    if array is not None and follow:
        raise click.UsageError("--follow prints the output of one job, and --array submits many.")
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
                array=array,
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
        what = "job" if submitted.array is None else "array"
        session.say(f"Submitted as {what} {submitted.id}")
        if not follow:
            click.echo(submitted.id)
    if submitted.array is not None:
        return await wait_for_array(session, submitted.array.id, output)
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
@job_or_array
@array_option
@timeout
@target
@command
async def wait(
    session: Session,
    job_id: int | None,
    array_id: int | None,
    timeout_s: float | None,
    output: Path | None,
) -> int:
    """Wait until a job has ended. The exit status is the job's own.

    With --array it waits for all tasks; the exit status is 1 unless all have completed.
    """
    job_id = one_of(job_id, array_id)
    if output is not None:
        await check_target(output)
    if array_id is not None:
        return await wait_for_array(session, array_id, output, timeout_s)
    job = await wait_for_end(session, job_id, follow=False, timeout_s=timeout_s)
    return await report_end(session, job, output)


@click.command()
@click.argument(
    "job_ids",
    metavar="[JOB…]",
    nargs=-1,
    type=JOB,
    shell_complete=complete_unended_jobs,
)
@array_option
@command
async def cancel(session: Session, job_ids: tuple[int, ...], array_id: int | None) -> int:
    """Cancel jobs. On return, all their processes have ended.

    Exit status 75: a machine does not answer at present; its job is cancelled as soon as it does.
    If a job can't be cancelled, the other ones are cancelled nevertheless. The exit status is that
    of the first failure.
    """
    one_of(next(iter(job_ids), None), array_id)
    if array_id is not None:
        return await cancel_array(session, array_id)
    code = 0
    for number in dict.fromkeys(job_ids):
        session.interrupt_note = (
            f"The server may still cancel job {number}. Check with: jo status {number}"
        )
        try:
            cancelled = await session.client.cancel(number)
        except (ServerUnavailable, NotAuthorized):
            raise  # it would be the same for the other jobs
        except ApiError as error:
            failed = report_failure(error, as_json=session.json, id=number)
            code = code or failed
            continue
        if session.json:
            session.show(cancelled)
        else:
            why = "" if cancelled.status is JobStatus.KILLED else f". {cancelled.message}"
            click.echo(f"Job {number} is {cancelled.status}{why}")
        if cancelled.status is not JobStatus.KILLED:
            code = code or exit_codes.TRY_LATER
    return code
