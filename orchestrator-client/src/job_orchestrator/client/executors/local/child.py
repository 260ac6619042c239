"""A program to start as a child of this process, and the child."""

import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from job_orchestrator.client.model import ScriptUser


@dataclass(frozen=True)
class Program:
    """A command with its surroundings. It starts in a new session, with an empty standard input.

    The first word of ``command`` is a path. ``stdout`` and ``stderr`` are descriptors. With
    ``user`` the process runs as that user, without supplementary groups, and cannot gain rights.
    """

    command: Sequence[str]
    folder: Path
    environment: Mapping[str, str]
    stdout: int
    stderr: int
    user: ScriptUser | None = None


@dataclass(frozen=True)
class Child:
    """A process that was started. The kernel does not reuse its pid before ``wait`` returned."""

    pid: int

    def wait(self) -> int:
        """Return the exit code when the process has ended; negative: the signal that ended it.

        Call it once.
        """
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def kill(self) -> None:
        """Send KILL."""
        os.kill(self.pid, signal.SIGKILL)


class CgroupStarter(Protocol):
    """A way to start programs directly in a cgroup of version 2.

    Methods that are no coroutines block.
    """

    def start(self, program: Program, cgroup: Path) -> Child:
        """Start a program in the cgroup with the folder ``cgroup``.

        Raises ``OSError``. Nothing runs then, unless the error is a ``TimeoutError`` or a
        ``ConnectionError``: after these the caller must kill the processes in ``cgroup``.
        """

    async def start_in_loop(self, program: Program, cgroup: Path) -> Child:
        """Start a program like ``start``, in the event loop."""

    def close(self) -> None:
        """Release the resources. The processes that were started go on."""
