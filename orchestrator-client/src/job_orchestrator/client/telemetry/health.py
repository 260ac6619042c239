"""Health check of jo-client."""

from collections.abc import Sequence
from dataclasses import dataclass

from job_orchestrator.client.payloads.fitness import Fitness
from job_orchestrator.client.results.packer import Packer
from job_orchestrator.client.workspace.layout import Workspaces
from job_orchestrator.common.errors import Unhealthy
from job_orchestrator.common.runtime.loops import Loop
from job_orchestrator.common.runtime.threads import in_thread


@dataclass(frozen=True)
class HealthCheck:
    """Checks the data folder, the threads that pack, and the background loops."""

    workspaces: Workspaces
    fitness: Fitness
    packer: Packer
    loops: Sequence[Loop]

    async def __call__(self) -> None:
        """Raise ``Unhealthy``, which names the failing part."""
        try:
            await in_thread(self.workspaces.check)
        except OSError as error:
            raise Unhealthy(f"The data folder can't be written: {error.strerror}") from error
        if self.fitness.problem:
            raise Unhealthy(f"This machine can't run payloads: {self.fitness.problem}")
        if self.packer.problem:
            raise Unhealthy(self.packer.problem)
        for loop in self.loops:
            if not loop.alive:
                raise Unhealthy(f"The {loop.name} has stopped; restart the client")
