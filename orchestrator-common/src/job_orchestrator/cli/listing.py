"""The command list."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from itertools import islice

import click

from job_orchestrator.cli.session import Session, command
from job_orchestrator.cli.states import complete_states, states
from job_orchestrator.cli.watch import changes_from_now
from job_orchestrator.common.config.numbers import Whole
from job_orchestrator.sdk import Change, Job, JobStatus


@click.command("list")
@click.option("--user", type=int, envvar="JO_USER", show_envvar=True, help="Jobs of this user.")
@click.option("--service", help="Jobs of this service.")
@click.option(
    "--status",
    "statuses",
    multiple=True,
    callback=states,
    shell_complete=complete_states,
    metavar="STATE[,STATE…]",
    help=f"Jobs in these states: {', '.join(JobStatus)}.",
)
@click.option("--tag", help="Jobs with this tag.")
@click.option(
    "-n",
    "--limit",
    type=Whole("number of jobs", 1),
    metavar="NUMBER",
    default=20,
    show_default=True,
    help="How many.",
)
@click.option("--watch", is_flag=True, help="Go on showing them as they change.")
@command
async def list_jobs(
    session: Session,
    user: int | None,
    service: str | None,
    statuses: frozenset[JobStatus],
    tag: str | None,
    limit: int,
    watch: bool,
) -> None:
    """List jobs, the newest first."""
    wanted = _Wanted(user, service, statuses, tag)
    if not watch:
        _show(session, await _newest(session, wanted, limit))
        return
    async with changes_from_now(session, user_id=user) as changes:
        if session.json:
            async for change in changes:
                if isinstance(change, Job) and wanted.includes(change):
                    session.show(change)
        else:
            jobs = await _newest(session, wanted, limit)
            await _show_live(session, jobs, changes, wanted, limit)


@dataclass(frozen=True)
class _Wanted:
    """Which jobs are asked for; None and no states: all."""

    user: int | None
    service: str | None
    states: frozenset[JobStatus]
    tag: str | None

    def includes(self, job: Job) -> bool:
        """Whether a job that the server told of is one of them."""
        return (
            (self.user is None or job.user_id == self.user)
            and (self.service is None or job.service == self.service.lower())
            and (not self.states or job.status in self.states)
            and (self.tag is None or job.tag == self.tag)
        )


async def _newest(session: Session, wanted: _Wanted, limit: int) -> list[Job]:
    found: list[Job] = []
    listed = session.client.jobs(
        user_id=wanted.user, service=wanted.service, status=wanted.states, tag=wanted.tag
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
    wanted: _Wanted,
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
            if wanted.includes(change):
                found[change.id] = change
            newest = sorted(found.values(), key=lambda job: -job.id)
            live.update(job_table(islice(newest, limit)))
