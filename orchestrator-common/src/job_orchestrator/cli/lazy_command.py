"""A command that is loaded when it is used.

What is needed to speak with a server takes longer to load than most calls take. ``jo --help`` and
the shell's completion, which only name the commands, do without.
"""

import gc
from importlib import import_module
from typing import Any

import click


class Later(click.Command):
    """Stands for the command ``attribute`` of ``module``; ``summary`` is what help says of it."""

    def __init__(self, name: str, module: str, attribute: str, summary: str) -> None:
        super().__init__(name, short_help=summary)
        self._module = module
        self._attribute = attribute

    def load(self) -> click.Command:
        """The command itself."""
        # Nothing of what is loaded is garbage: looking for some would take a sixth of the time.
        gc.disable()
        try:
            found: click.Command = getattr(import_module(self._module), self._attribute)
        finally:
            gc.enable()
        return found

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """Begin to run it, or to complete its options: from here on it is the command itself."""
        return self.load().make_context(info_name, args, parent, **extra)
