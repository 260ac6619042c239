"""Holds a program back until its process is where it belongs."""

import os
from collections.abc import Sequence
from types import TracebackType

_HOLD = ("/bin/sh", "-c", 'read -r _ && exec "$@" < /dev/null', "sh")


class Gate:
    """A program that is started behind the gate runs when it is opened.

    Between its start and its way into a cgroup it could fork, and what it forked would stay
    outside; where it can't be born there (see ``fork_server``), it waits. If this process dies
    first, it never runs.
    """

    def __init__(self) -> None:
        self.descriptor, self._key = os.pipe()

    def __enter__(self) -> "Gate":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self.descriptor)
        os.close(self._key)

    def held(self, command: Sequence[str]) -> list[str]:
        """The command to start, with ``descriptor`` as its standard input."""
        return [*_HOLD, *command]

    def open(self) -> None:
        """Let the program run; its standard input is empty then."""
        os.write(self._key, b"\n")
