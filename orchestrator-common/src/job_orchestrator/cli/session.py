"""What all commands share: the connection, where they write, and how they end."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping
from functools import cached_property, wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec

import click
import msgspec
from click.core import ParameterSource

from job_orchestrator.cli import exit_codes
from job_orchestrator.cli.interrupts import (
    INTERRUPTED,
    leave_when_interrupted,
    raise_when_interrupted,
)
from job_orchestrator.sdk import ApiError, AsyncClient, ServerUnreachable

if TYPE_CHECKING:
    from rich.console import Console

P = ParamSpec("P")

DEFAULT_URL = "http://localhost:5000"
PIPE_WIDTH = 250
PATIENCE_S = 600.0
"""Whoever waits for a job also waits for a server that is restarted or moved."""


class Session:
    """One run of a command.

    ``out`` is standard output, for what was asked for; ``err`` standard error, for progress and
    everything else. ``remains`` is told to the user who interrupts: what goes on without them.
    Without ``patient`` nothing that failed is tried again.
    """

    def __init__(self, url: str, token: str | None, json: bool) -> None:
        self.json = json
        self.token = token
        self.client = AsyncClient(url, token, patience_s=PATIENCE_S, on_trouble=self._on_trouble)
        self.remains = ""
        self.patient = True
        self._told: set[str] = set()

    @cached_property
    def out(self) -> "Console":
        """Tables go there. rich is loaded where it is needed: it takes its time."""
        from rich.console import Console

        # What a program reads is not cut to the width of no terminal.
        width = None if sys.stdout.isatty() else PIPE_WIDTH
        return Console(highlight=False, emoji=False, soft_wrap=True, width=width)

    @cached_property
    def err(self) -> "Console":
        """What moves, and what is said meanwhile."""
        from rich.console import Console

        return Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)

    @property
    def lively(self) -> bool:
        """Whether somebody watches: progress may move."""
        return sys.stderr.isatty() and not self.json

    def say(self, text: str) -> None:
        """Tell the user something that is no result."""
        if self.lively:
            self.err.print(text, markup=False)
        else:
            click.echo(text, err=True)

    def say_once(self, text: str) -> None:
        """Tell the user something that may come again, for the first time."""
        if text not in self._told:
            self._told.add(text)
            self.say(text)

    def show(self, value: Any) -> None:
        """Print a value as JSON, on one line: a pipe's ``jq`` makes it pretty."""
        sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
        sys.stdout.flush()

    def _on_trouble(self, error: ApiError, pause_s: float) -> None:
        """Tell once what is tried again. A server that never answered is more likely not there."""
        if isinstance(error, ServerUnreachable) and not self.client.answered:
            raise ServerUnreachable(
                f"{error}. Is jo-server running there? Give its URL with --url or JO_URL"
            )
        if not self.patient:
            raise error
        self.say_once(f"{error}; trying again for {PATIENCE_S / 60:g} minutes (Ctrl-C stops)")


Command = Callable[Concatenate[Session, P], Awaitable[int | None]]


def command(function: Command[P]) -> Callable[..., None]:
    """Make a click command of a coroutine that gets the session, and returns an exit status."""

    @click.option(
        "--url",
        envvar="JO_URL",
        default=DEFAULT_URL,
        show_default=True,
        show_envvar=True,
        metavar="URL",
        help="Where jo-server is.",
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
        before = _before_the_command()
        if not _is_given("url"):
            url = before.get("url") or url
        if not _is_given("token"):
            token = before.get("token") or token
        as_json = as_json or bool(before.get("as_json"))
        sys.exit(_run(function, url, token, as_json, options))

    return run


def _before_the_command() -> Mapping[str, Any]:
    """The options that stand before the command: those of ``jo`` itself."""
    group = click.get_current_context().parent
    return {} if group is None else group.params


def _is_given(option: str) -> bool:
    """Whether the option stands after the command, where it wins; not in the environment."""
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
        raise_when_interrupted()
        return asyncio.run(main())
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except KeyboardInterrupt:
        remains = session.remains if session else ""
        click.echo(f"\nInterrupted. {remains}".rstrip(), err=True)
        return INTERRUPTED
    except ApiError as error:
        code = exit_codes.of_error(error)
        if as_json:
            click.echo(msgspec.json.encode({"error": type(error).__name__, "message": str(error)}))
        click.echo(f"jo: {error}", err=True)
        return code
    finally:
        leave_when_interrupted()
