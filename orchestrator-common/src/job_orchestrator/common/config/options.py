"""Command-line flags of settings, and options with values of their kinds, for click."""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import click

from job_orchestrator.common.config.kinds import Kind, NotAllowed
from job_orchestrator.common.config.settings import Setting

Command = TypeVar("Command", bound=Callable[..., Any])


def setting_flags(settings: Iterable[Setting[Any]]) -> Callable[[Command], Command]:
    """Decorate a click command with a flag for each setting that is not secret.

    The text of a flag arrives as a keyword argument with the name of the setting (``MAX_AGE``);
    None if the flag is absent. ``SettingsReader`` converts and checks it.
    """

    def decorate(command: Command) -> Command:
        for setting in reversed([setting for setting in settings if not setting.secret]):
            command = click.option(
                setting.flag,
                setting.name,
                metavar=setting.kind.metavar,
                help=f"{setting.help} [env {setting.name}; default {setting.default_text}]",
            )(command)
        return command

    return decorate


def kind_option(*names: str, kind: Kind[object], help: str) -> Callable[[Command], Command]:
    """Decorate a click command with an option whose value is of a kind of settings.

    Its errors say what is allowed, where click would say "is not a valid integer range".
    """

    def convert(_: click.Context, __: click.Parameter, text: str | None) -> object:
        try:
            return None if text is None else kind.parse(text.strip())
        except NotAllowed as error:
            raise click.BadParameter(f"{text!r}; it must be {error.allowed}") from error

    return click.option(*names, metavar=kind.metavar, callback=convert, help=help)


def environment_help(settings: Iterable[Setting[Any]], prefix: str = "") -> str:
    """Describe settings that have no flag, in one paragraph each, for the epilog of a command."""
    return "\n\n".join(
        f"{prefix}{setting.name}: {setting.help} [default {setting.default_text}]"
        + (f". {setting.name}_FILE: a file that holds it" if setting.secret else "")
        for setting in settings
    )
