"""Holds a program back until its process has been moved into its cgroup."""

import os
from collections.abc import Sequence
from types import TracebackType

_WAIT_THEN_EXEC = ("/bin/sh", "-c", 'read -r _ && exec "$@" < /dev/null', "sh")


class StartGate:
    """Gate in front of a program that must not run before it is in its cgroup.

    Between its start and the move, the program could fork, and its children would stay outside the
    cgroup. The gate is needed only where the kernel cannot start a process directly in a cgroup
    (see ``fork_server``). If this process ends before the gate is opened, the program never runs.
    """

    def __init__(self) -> None:
        self.descriptor, self._write_end = os.pipe()

    def __enter__(self) -> "StartGate":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self.descriptor)
        os.close(self._write_end)

    def wrap(self, command: Sequence[str]) -> list[str]:
        """Return the command to start, with ``descriptor`` as its standard input."""
        return [*_WAIT_THEN_EXEC, *command]

    def open(self) -> None:
        """Start the program, with an empty standard input."""
        os.write(self._write_end, b"\n")
