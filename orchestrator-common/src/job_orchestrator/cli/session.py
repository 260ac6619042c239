"""Common part of all commands: the connection, the output, and the exit status."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property, wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec

import click
import msgspec
from click.core import ParameterSource

from job_orchestrator.cli import exit_codes
from job_orchestrator.cli.interrupts import (
    INTERRUPTED,
    exit_on_interrupt,
    raise_on_interrupt,
)
from job_orchestrator.sdk import ApiError, AsyncClient, Progress, Refused, ServerUnreachable

if TYPE_CHECKING:
    from rich.console import Console

P = ParamSpec("P")

DEFAULT_URL = "http://localhost:5000"
PIPE_WIDTH = 250
"""Columns of tables that are not written to a terminal, which has no width to take."""

PATIENCE_S = 600.0
"""A wait for a job outlasts a restart or a move of the server."""


class Session:
    """One run of a command.

    Results are written to ``out``, standard output; progress and messages to ``err``, standard
    error. ``interrupt_note`` is printed on Ctrl-C: the work that continues without ``jo``. If
    ``retries`` is False, a failed call is not repeated.
    """

    def __init__(self, url: str, token: str | None, json: bool) -> None:
        self.json = json
        self.token = token
        self.client = AsyncClient(url, token, patience_s=PATIENCE_S, on_trouble=self._on_trouble)
        self.interrupt_note = ""
        self.retries = True
        self._said: set[str] = set()

    @cached_property
    def out(self) -> "Console":
        """Console on standard output. rich is imported only where it is needed: it loads slowly."""
        from rich.console import Console

        # A pipe has no width: a table is not cut to that of an assumed terminal.
        width = None if sys.stdout.isatty() else PIPE_WIDTH
        return Console(highlight=False, emoji=False, soft_wrap=True, width=width)

    @cached_property
    def err(self) -> "Console":
        """Console on standard error, for progress and messages."""
        from rich.console import Console

        return Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)

    @property
    def is_interactive(self) -> bool:
        """True if a person watches standard error, so that progress may be animated."""
        return sys.stderr.isatty() and not self.json

    def say(self, text: str) -> None:
        """Print a message that is not a result."""
        if self.is_interactive:
            self.err.print(text, markup=False)
        else:
            click.echo(text, err=True)

    def say_once(self, text: str) -> None:
        """Print a message, unless the same message has been printed before."""
        if text not in self._said:
            self._said.add(text)
            self.say(text)

    def show(self, value: Any) -> None:
        """Print a value as one line of JSON."""
        sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
        sys.stdout.flush()

    async def unknown_service(self, name: str) -> Refused | None:
        """Return the error for a service that the server does not have; None if it has it.

        Raises ``ApiError``.
        """
        names = [service.name for service in await self.client.services()]
        if name.lower() in names:
            return None
        return Refused(f"Invalid service {name!r}; the services of this server: {', '.join(names)}")

    @contextmanager
    def progress_bar(self, title: str) -> Iterator[Progress | None]:
        """Show a progress bar on standard error during the block, if a person watches.

        Yields a callback for the ``progress`` argument of a call.
        """
        if not self.is_interactive:
            yield None
            return
        from rich import progress

        with progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.DownloadColumn(),
            progress.TransferSpeedColumn(),
            progress.TimeRemainingColumn(),
            console=self.err,
            transient=True,
        ) as bar:
            transfer = bar.add_task(title, total=None)

            def update(done: int, total: int | None) -> None:
                bar.update(transfer, completed=done, total=total)

            yield update

    def _on_trouble(self, error: ApiError, delay_s: float) -> None:
        """Print once that a call is retried.

        A server that has never answered probably does not run: its error is raised, with advice.
        Without ``retries`` every error is raised.
        """
        if isinstance(error, ServerUnreachable) and not self.client.answered:
            raise ServerUnreachable(
                f"{error}. Is jo-server running there? Give its URL with --url or JO_URL"
            )
        if not self.retries:
            raise error
        self.say_once(f"{error}; retrying for {PATIENCE_S / 60:g} minutes (Ctrl-C stops)")


Command = Callable[Concatenate[Session, P], Awaitable[int | None]]


def command(function: Command[P]) -> Callable[..., None]:
    """Turn a coroutine function into the callback of a click command, with the common options.

    The function gets the session and returns an exit status, None for success.
    """

    @click.option(
        "--url",
        envvar="JO_URL",
        default=DEFAULT_URL,
        show_default=True,
        show_envvar=True,
        metavar="URL",
        help="URL of jo-server.",
    )
    @click.option(
        "--token",
        envvar="JO_TOKEN",
        show_envvar=True,
        metavar="TOKEN",
        help="Token for the server.",
    )
    @click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
    @wraps(function)
    def run(*args: Any, url: str, token: str | None, as_json: bool, **options: Any) -> None:
        before = _options_before_the_command()
        if not is_given("url"):
            url = before.get("url") or url
        if not is_given("token"):
            token = before.get("token") or token
        as_json = as_json or bool(before.get("as_json"))
        sys.exit(_run(function, url, token, as_json, options))

    return run


def report_failure(error: ApiError, *, as_json: bool, **about: object) -> int:
    """Print an error, in JSON together with ``about``. Returns its exit status."""
    if as_json:
        fields = {**about, "error": type(error).__name__, "message": str(error)}
        click.echo(msgspec.json.encode(fields))
    click.echo(f"jo: {error}", err=True)
    return exit_codes.of_error(error)


def _options_before_the_command() -> Mapping[str, Any]:
    """Return the options that are given before the command: those of ``jo`` itself."""
    group = click.get_current_context().parent
    return {} if group is None else group.params


def is_given(option: str) -> bool:
    """Return True if the option is given after the command, where it has precedence."""
    source = click.get_current_context().get_parameter_source(option)
    return source is ParameterSource.COMMANDLINE


def _run(
    function: Callable[..., Awaitable[int | None]],
    url: str,
    token: str | None,
    as_json: bool,
    options: dict[str, Any],
) -> int:
    session: Session | None = None

    async def main() -> int:
        nonlocal session
        session = Session(url, token, as_json)
        async with session.client:
            return await function(session, **options) or 0

    try:
        raise_on_interrupt()
        return asyncio.run(main())
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except KeyboardInterrupt:
        note = session.interrupt_note if session else ""
        click.echo(f"\nInterrupted. {note}".rstrip(), err=True)
        return INTERRUPTED
    except ApiError as error:
        return report_failure(error, as_json=as_json)
    finally:
        exit_on_interrupt()
