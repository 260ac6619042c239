"""Command top: services, clients and jobs on a live screen."""

import asyncio
import os
import sys
from collections import OrderedDict
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager

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
QUIT_KEYS = b"qQ"
MAX_KEYS = 64


@click.command()
@command
async def top(session: Session) -> None:
    """Show services, clients and jobs, live. The key q or Ctrl-C ends the display."""
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
        with (
            Live(
                get_renderable=screen.draw,
                console=session.out,
                screen=True,
                refresh_per_second=REFRESH_PER_S,
            ),
            _key_pressed(QUIT_KEYS) as quit_pressed,
        ):
            await _show_until(quit_pressed, screen, changes)


async def _show_until(
    ended: asyncio.Event, screen: "_Screen", changes: AsyncGenerator[Change]
) -> None:
    """Apply changes to the screen until ``ended`` is set. Raises ``ApiError``."""

    async def show() -> None:
        async for change in changes:
            screen.update(change)

    showing = asyncio.create_task(show())
    ending = asyncio.create_task(ended.wait())
    try:
        await asyncio.wait({showing, ending}, return_when=asyncio.FIRST_COMPLETED)
        if showing.done():
            await showing
    finally:
        for task in (showing, ending):
            task.cancel()
        await asyncio.gather(showing, ending, return_exceptions=True)


@contextmanager
def _key_pressed(keys: bytes) -> Iterator[asyncio.Event]:
    """Yield an event that is set when one of ``keys`` is pressed. Never if stdin is no terminal.

    Keys are read one by one and not echoed. Ctrl-C stays an interrupt.
    """
    pressed = asyncio.Event()
    if sys.platform == "win32" or not sys.stdin.isatty():
        yield pressed
        return
    import termios
    import tty

    terminal, loop = sys.stdin.fileno(), asyncio.get_running_loop()

    def read() -> None:
        read_keys = os.read(terminal, MAX_KEYS)
        if not read_keys:
            loop.remove_reader(terminal)  # the terminal is gone
        elif any(key in keys for key in read_keys):
            pressed.set()

    before = termios.tcgetattr(terminal)
    try:
        # Keys that were pressed before are kept.
        tty.setcbreak(terminal, termios.TCSADRAIN)
        loop.add_reader(terminal, read)
        yield pressed
    finally:
        loop.remove_reader(terminal)
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


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
            Text(f"{self._url}   q ends the display; jobs continue", style="dim"),
            Text(),
            service_table(self._services),
            Text(),
            client_table(self._clients),
            Text(),
            job_table(newest),
        )
