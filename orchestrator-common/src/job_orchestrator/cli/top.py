"""The command top: services, clients and jobs on a live screen."""

from collections import OrderedDict
from contextlib import aclosing

import click
from rich.console import Group
from rich.live import Live
from rich.text import Text

from job_orchestrator.cli.session import Session, command
from job_orchestrator.cli.tables import client_table, job_table, service_table
from job_orchestrator.cli.watch import changes_from_now
from job_orchestrator.sdk import ComputeClient, Job, Refused, Service

SHOWN_JOBS = 15
REFRESH_PER_S = 2


@click.command()
@command
async def top(session: Session) -> None:
    """Show services, clients and jobs, live. Ctrl-C ends it."""
    if not session.out.is_terminal or session.json:
        raise Refused(
            "top needs a terminal; programs take: jo services --json, jo clients --json, "
            "jo list --watch --json"
        )
    screen = _Screen(session.client.url)
    async with changes_from_now(session) as changes:
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
                screen.take(change)


class _Screen:
    """What is known, drawn when it is time to."""

    def __init__(self, url: str) -> None:
        self.jobs: OrderedDict[int, Job] = OrderedDict()
        self._url = url
        self._services: list[Service] = []
        self._clients: list[ComputeClient] = []

    def take(self, change: Job | list[Service] | list[ComputeClient]) -> None:
        """Note a change."""
        if isinstance(change, Job):
            self.jobs[change.id] = change
            while len(self.jobs) > SHOWN_JOBS:
                del self.jobs[min(self.jobs)]
        elif change and isinstance(change[0], Service):
            self._services = [each for each in change if isinstance(each, Service)]
        else:
            self._clients = [each for each in change if isinstance(each, ComputeClient)]

    def draw(self) -> Group:
        """Everything, for a terminal."""
        newest = sorted(self.jobs.values(), key=lambda job: -job.id)
        return Group(
            Text(f"{self._url}   Ctrl-C ends this, and nothing else", style="dim"),
            Text(),
            service_table(self._services),
            Text(),
            client_table(self._clients),
            Text(),
            job_table(newest),
        )
