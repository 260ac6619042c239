"""Commands that list: list (jobs), services, clients."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice

import click

from job_orchestrator.cli.completion import complete_services
from job_orchestrator.cli.formatting import moment
from job_orchestrator.cli.params import WholeNumber, complete_states, parse_states
from job_orchestrator.cli.session import Session, command, is_given
from job_orchestrator.cli.watch import open_changes
from job_orchestrator.sdk import Change, Job, JobStatus


@click.command("list")
@click.option(
    "--user", type=int, envvar="JO_USER", show_envvar=True, help="Only jobs of this user."
)
@click.option("--all-users", is_flag=True, help="Jobs of all users, also if JO_USER is set.")
@click.option(
    "--service",
    envvar="JO_SERVICE",
    show_envvar=True,
    shell_complete=complete_services,
    help="Only jobs of this service.",
)
@click.option(
    "--all-services", is_flag=True, help="Jobs of all services, also if JO_SERVICE is set."
)
@click.option(
    "--status",
    "statuses",
    multiple=True,
    callback=parse_states,
    shell_complete=complete_states,
    metavar="STATE[,STATE…]",
    help=f"Only jobs in these states: {', '.join(JobStatus)}.",
)
@click.option("--tag", help="Only jobs with this tag.")
@click.option(
    "--array", type=WholeNumber("array id", 0), metavar="ARRAY", help="Only tasks of this array."
)
@click.option(
    "-n",
    "--limit",
    type=WholeNumber("number of jobs", 1),
    metavar="NUMBER",
    default=20,
    show_default=True,
    help="Number of jobs to list.",
)
@click.option("--watch", is_flag=True, help="Keep showing the jobs as they change.")
@command
async def list_jobs(
    session: Session,
    user: int | None,
    all_users: bool,
    service: str | None,
    all_services: bool,
    statuses: frozenset[JobStatus],
    tag: str | None,
    array: int | None,
    limit: int,
    watch: bool,
) -> None:
    """List jobs, newest first."""
    user = None if _is_widened("user", all_users) else user
    service = None if _is_widened("service", all_services) else service
    if not session.json:
        _say_if_narrowed(session, user, service)
    job_filter = _Filter(user, service, statuses, tag, array)
    if not watch:
        jobs = await _newest(session, job_filter, limit)
        if not jobs and service is not None:
            await _check_service(session, service)
        _show(session, jobs)
        return
    if service is not None:
        await _check_service(session, service)
    async with open_changes(session, user_id=user) as changes:
        if session.json:
            async for change in changes:
                if isinstance(change, Job) and job_filter.matches(change):
                    session.show(change)
        else:
            jobs = await _newest(session, job_filter, limit)
            show = _show_live if session.out.is_terminal else _show_lines
            await show(session, jobs, changes, job_filter, limit)


def _is_widened(option: str, everything: bool) -> bool:
    """Return whether the list is of all users or services. ``option`` narrows it."""
    if everything and is_given(option):
        raise click.UsageError(f"--{option} and --all-{option}s exclude each other.")
    return everything


def _say_if_narrowed(session: Session, user: int | None, service: str | None) -> None:
    """Say which jobs the environment hides."""
    parts, widening = [], []
    if user is not None and not is_given("user"):
        parts.append(f"of user {user} (JO_USER)")
        widening.append("--all-users")
    if service is not None and not is_given("service"):
        parts.append(f"of service {service} (JO_SERVICE)")
        widening.append("--all-services")
    if parts:
        session.say(f"Only jobs {' and '.join(parts)}. For others: {', '.join(widening)}")


async def _check_service(session: Session, service: str) -> None:
    """Raise ``Refused`` for a service that the server neither has nor ever had jobs of."""
    error = await session.unknown_service(service)
    if error is not None and not await _newest(
        session, _Filter(None, service, frozenset(), None), 1
    ):
        raise error


@dataclass(frozen=True)
class _Filter:
    """Filter of a list of jobs. None, and an empty set of states, match all."""

    user: int | None
    service: str | None
    states: frozenset[JobStatus]
    tag: str | None
    array: int | None = None

    def matches(self, job: Job) -> bool:
        """Return True if the list contains ``job``."""
        return (
            (self.user is None or job.user_id == self.user)
            and (self.service is None or job.service == self.service.lower())
            and (not self.states or job.status in self.states)
            and (self.tag is None or job.tag == self.tag)
            and (self.array is None or job.array_id == self.array)
        )


async def _newest(session: Session, job_filter: _Filter, limit: int) -> list[Job]:
    found: list[Job] = []
    listed = session.client.jobs(
        user_id=job_filter.user,
        service=job_filter.service,
        status=job_filter.states,
        tag=job_filter.tag,
        array=job_filter.array,
    )
    async with aclosing(listed):
        async for job in listed:
            found.append(job)
            if len(found) == limit:
                break
    return found


def _show(session: Session, jobs: list[Job]) -> None:
    if session.json:
        session.show(jobs)
        return
    from job_orchestrator.cli.tables import job_table

    session.out.print(job_table(jobs) if jobs else "No jobs")


async def _show_live(
    session: Session,
    jobs: list[Job],
    changes: AsyncGenerator[Change],
    job_filter: _Filter,
    limit: int,
) -> None:
    from rich.live import Live

    from job_orchestrator.cli.tables import job_table

    found = {job.id: job for job in jobs}
    with Live(job_table(jobs), console=session.out) as live:
        async for change in changes:
            if not isinstance(change, Job):
                continue
            found.pop(change.id, None)
            if job_filter.matches(change):
                found[change.id] = change
            newest = sorted(found.values(), key=lambda job: -job.id)
            live.update(job_table(islice(newest, limit)))


async def _show_lines(
    session: Session,
    jobs: list[Job],
    changes: AsyncGenerator[Change],
    job_filter: _Filter,
    _: int,
) -> None:
    """Print the table once, and then a line for each change: a pipe can't be overwritten."""
    _show(session, jobs)
    async for change in changes:
        if isinstance(change, Job) and job_filter.matches(change):
            about = ", ".join(text for text in (change.service, change.name) if text)
            why = f": {change.message}" if change.message else ""
            click.echo(
                f"{moment(datetime.now(UTC))}  Job {change.id} of user {change.user_id} ({about})"
                f" is {change.status}{why}"
            )


@click.command()
@command
async def services(session: Session) -> None:
    """List the services: limits, use, queue, problems."""
    found = await session.client.services()
    if session.json:
        session.show(found)
        return
    from job_orchestrator.cli.tables import service_table

    session.out.print(service_table(found))


@click.command()
@command
async def clients(session: Session) -> None:
    """List the compute clients: state, slots, load, versions."""
    found = await session.client.clients()
    if session.json:
        session.show(found)
        return
    from job_orchestrator.cli.tables import client_table

    session.out.print(client_table(found))
