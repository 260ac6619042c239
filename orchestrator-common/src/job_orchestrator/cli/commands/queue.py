"""Commands about the queue: explain, hold, release, priority, pause, resume, drain, forget."""

from collections.abc import Awaitable, Callable

import click
import msgspec

from job_orchestrator.cli.completion import complete_services, complete_unended_jobs
from job_orchestrator.cli.params import WholeNumber
from job_orchestrator.cli.session import Session, command, report_failure
from job_orchestrator.sdk import (
    ApiError,
    ComputeClient,
    JobDetail,
    NotAuthorized,
    PauseList,
    ServerUnavailable,
)

JOB = WholeNumber("job id", 0)

jobs = click.argument(
    "job_ids",
    metavar="JOB…",
    nargs=-1,
    required=True,
    type=JOB,
    shell_complete=complete_unended_jobs,
)
service = click.option(
    "--service", shell_complete=complete_services, help="Service whose jobs are concerned."
)
user = click.option("--user", "user_id", type=int, help="User whose jobs are concerned.")


@click.command()
@jobs
@command
async def hold(session: Session, job_ids: tuple[int, ...]) -> int:
    """Hold queued jobs: they don't start before they are released."""
    return await _change(
        session, job_ids, lambda job_id: session.client.change(job_id, held=True), "is on hold"
    )


@click.command()
@jobs
@command
async def release(session: Session, job_ids: tuple[int, ...]) -> int:
    """Release jobs that are on hold."""
    return await _change(
        session, job_ids, lambda job_id: session.client.change(job_id, held=False), "is released"
    )


@click.command()
@click.argument("job_id", metavar="JOB", type=JOB, shell_complete=complete_unended_jobs)
@click.argument("priority", type=WholeNumber("priority", -100, 100))
@command
async def priority(session: Session, job_id: int, priority: int) -> int:
    """Change the priority of a queued job.

    It is from -100 to 100; jobs with a higher one start first.
    """
    return await _change(
        session,
        (job_id,),
        lambda job_id: session.client.change(job_id, priority=priority),
        f"has priority {priority}",
    )


@click.command()
@click.argument("job_id", metavar="JOB", type=JOB, shell_complete=complete_unended_jobs)
@command
async def explain(session: Session, job_id: int) -> None:
    """Say why a job waits, and when it is expected to start.

    Administrators also see all that the scheduler decides by: limits, the users in line, clients.
    """
    job = await session.client.job(job_id)
    explanation = None
    if job.waiting is not None and (await session.client.whoami()).admin:
        explanation = await session.client.explain(job_id)
    if session.json:
        shown = msgspec.to_builtins(job)
        if explanation is not None:
            shown["explanation"] = msgspec.to_builtins(explanation)
        session.show(shown)
        return
    if job.waiting is None:
        reason = f": {job.message}" if job.message else ""
        click.echo(f"Job {job_id} does not wait: it is {job.status}{reason}.")
        return
    sentence = f"Job {job_id} waits: {job.waiting.reason}"
    if (start := job.waiting.expected_start) is not None:
        half, most = (at.astimezone().strftime("%d %b %H:%M:%S") for at in (start.p50, start.p90))
        sentence += f"; it starts by {half} in half of such cases, by {most} in nine of ten"
    click.echo(f"{sentence}.")
    if explanation is not None:
        from job_orchestrator.cli.explanation import tables_of

        for table in tables_of(explanation):
            session.out.print()
            session.out.print(table)


@click.command()
@service
@user
@command
async def pause(session: Session, service: str | None, user_id: int | None) -> None:
    """Start no more jobs of a service or a user. Running jobs go on. For administrators."""
    _check(service, user_id)
    _show(session, await session.client.pause(service=service, user_id=user_id))


@click.command()
@click.argument("client", metavar="CLIENT")
@command
async def drain(session: Session, client: str) -> None:
    """Give a client no more jobs. Those that it has go on. For administrators.

    CLIENT is the name in the table of jo clients. jo resume --client gives it jobs again.
    """
    _show_client(session, await session.client.drain_client(client), f"{client} is drained")


@click.command()
@click.argument("client", metavar="CLIENT")
@command
async def forget(session: Session, client: str) -> None:
    """Forget a client that has registered itself and has no jobs. For administrators."""
    _show_client(session, await session.client.forget_client(client), f"{client} is forgotten")


@click.command()
@service
@user
@click.option("--client", help="Drained client that gets jobs again.")
@command
async def resume(
    session: Session, service: str | None, user_id: int | None, client: str | None
) -> None:
    """Start the jobs of a paused service, user or drained client again. For administrators."""
    if client is not None:
        if service is not None or user_id is not None:
            raise click.UsageError("Name one of --service, --user and --client.")
        found = await session.client.resume_client(client)
        _show_client(session, found, f"{client} gets jobs again")
        return
    _check(service, user_id)
    _show(session, await session.client.resume(service=service, user_id=user_id))


async def _change(
    session: Session,
    job_ids: tuple[int, ...],
    change: Callable[[int], Awaitable[JobDetail]],
    done: str,
) -> int:
    """Change each job. Returns the exit status: 0, or that of the first failure."""
    code = 0
    for job_id in dict.fromkeys(job_ids):
        try:
            changed = await change(job_id)
        except (ServerUnavailable, NotAuthorized):
            raise  # it would be the same for the other jobs
        except ApiError as error:
            failed = report_failure(error, as_json=session.json, id=job_id)
            code = code or failed
            continue
        if session.json:
            session.show(changed)
        else:
            click.echo(f"Job {job_id} {done}")
    return code


def _check(service: str | None, user_id: int | None) -> None:
    if service is None and user_id is None:
        raise click.UsageError("Name a service (--service) or a user (--user).")


def _show_client(session: Session, clients: list[ComputeClient], done: str) -> None:
    if session.json:
        session.show(clients)
    else:
        click.echo(done)


def _show(session: Session, paused: PauseList) -> None:
    if session.json:
        session.show(paused)
        return
    names = [*paused.services, *(f"user {user_id}" for user_id in paused.users)]
    click.echo(f"Paused: {', '.join(names)}" if names else "Nothing is paused")
