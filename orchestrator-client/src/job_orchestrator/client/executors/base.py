"""The contract between the runner and the ways of running a payload."""

from dataclasses import dataclass
from typing import Protocol

from job_orchestrator.client.workspace.layout import Workspace


@dataclass(frozen=True)
class Outcome:
    """How run.sh ended.

    ``exit_code`` is that of the process, or 128 + n for one that signal n ended, as shells count.
    Times are seconds since the epoch. ``limit_reached`` says which limit of the payload was met, if
    one was.
    """

    exit_code: int
    signal: int | None
    started_at: float
    ended_at: float
    limit_reached: str = ""


class Execution(Protocol):
    """One run of a payload."""

    @property
    def pid(self) -> int:
        """The process of run.sh, or 0 if it has none here."""

    async def wait(self) -> Outcome:
        """Wait for the end of run.sh; on return nothing that it started runs any more.

        To be called once. Raises ``StillRunning`` if something resists being ended.
        """

    async def terminate(self) -> None:
        """End it with all that it started. Returns when that is done; safe at any time.

        Raises ``StillRunning`` if something resists.
        """


class Executor(Protocol):
    """A way of running payloads."""

    async def start(self, workspace: Workspace) -> Execution:
        """Start ``run.sh`` in the workspace's work folder.

        Raises ``OSError`` if it can't be started.
        """

    async def clear(self) -> None:
        """End whatever is left of any payload: of an earlier life of the client, or of this one.

        Raises ``StillRunning``.
        """

    async def reap(self) -> None:
        """Give back what ended parts of running payloads still hold. Called every second or so."""
