"""Health check of jo-client."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from job_orchestrator.client.workspace.layout import Workspaces
from job_orchestrator.common.errors import Unhealthy
from job_orchestrator.common.runtime.loops import Loop
from job_orchestrator.common.runtime.threads import in_thread


@dataclass(frozen=True)
class HealthCheck:
    """Checks the data folder, the background loops, and what ``problems`` return.

    Each of these returns a text that says what does not work; empty if it works.
    """

    workspaces: Workspaces
    problems: Sequence[Callable[[], str]]
    loops: Sequence[Loop]

    async def __call__(self) -> None:
        """Raise ``Unhealthy``, which names the failing part."""
        try:
            await in_thread(self.workspaces.check)
        except OSError as error:
            raise Unhealthy(f"The data folder can't be written: {error.strerror}") from error
        for problem in self.problems:
            if text := problem():
                raise Unhealthy(text)
        for loop in self.loops:
            if not loop.alive:
                raise Unhealthy(f"The {loop.name} has stopped; restart the client")
