"""Command top: services, clients and jobs on a live screen."""

from collections import OrderedDict
from contextlib import aclosing

import click
from rich.console import Group
from rich.live import Live
from rich.text import Text

from job_orchestrator.cli.session import Session, command
from job_orchestrator.cli.tables import client_table, job_table, service_table
from job_orchestrator.cli.watch import open_changes
from job_orchestrator.sdk import Change, ComputeClient, Job, Refused, Service

SHOWN_JOBS = 15
REFRESH_PER_S = 2


@click.command()
@command
async def top(session: Session) -> None:
    """Show services, clients and jobs, live. Ctrl-C ends the display."""
    if not session.out.is_terminal or session.json:
        raise Refused(
            "top needs a terminal; in programs use: jo services --json, jo clients --json, "
            "jo list --watch --json"
        )
    screen = _Screen(session.client.url)
    async with open_changes(session) as changes:
        jobs = session.client.jobs()
        async with aclosing(jobs):
            async for job in jobs:
                screen.jobs[job.id] = job
                if len(screen.jobs) == SHOWN_JOBS:
                    break
        with Live(
            get_renderable=screen.draw,
            console=session.out,
            screen=True,
            refresh_per_second=REFRESH_PER_S,
        ):
            async for change in changes:
                screen.update(change)


class _Screen:
    """State of the screen: the newest jobs, the services, the clients."""

    def __init__(self, url: str) -> None:
        self.jobs: OrderedDict[int, Job] = OrderedDict()
        self._url = url
        self._services: list[Service] = []
        self._clients: list[ComputeClient] = []

    def update(self, change: Change) -> None:
        """Apply a change that the server has pushed."""
        if isinstance(change, Job):
            self.jobs[change.id] = change
            while len(self.jobs) > SHOWN_JOBS:
                del self.jobs[min(self.jobs)]
        elif change and isinstance(change[0], Service):
            self._services = [each for each in change if isinstance(each, Service)]
        else:
            self._clients = [each for each in change if isinstance(each, ComputeClient)]

    def draw(self) -> Group:
        """Return the screen as rich renders it."""
        newest = sorted(self.jobs.values(), key=lambda job: -job.id)
        return Group(
            Text(f"{self._url}   Ctrl-C ends the display; jobs continue", style="dim"),
            Text(),
            service_table(self._services),
            Text(),
            client_table(self._clients),
            Text(),
            job_table(newest),
        )
