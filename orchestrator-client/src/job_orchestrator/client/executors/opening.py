"""Opens the executor that the settings select."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from job_orchestrator.client.executors.base import Executor
from job_orchestrator.client.executors.batch.commands import Commands
from job_orchestrator.client.executors.batch.executor import BatchExecutor
from job_orchestrator.client.executors.batch.grid_engine import GridEngine
from job_orchestrator.client.executors.batch.scheduler import Scheduler
from job_orchestrator.client.executors.batch.settings import BatchSettings, ExecutorKind
from job_orchestrator.client.executors.batch.slurm import Slurm
from job_orchestrator.client.executors.local.executor import open_local_executor
from job_orchestrator.client.executors.local.settings import ExecutionSettings
from job_orchestrator.client.workspace.deferred_removal import DeferredRemoval
from job_orchestrator.client.workspace.layout import Workspaces


@asynccontextmanager
async def open_executor(
    batch: BatchSettings,
    execution: ExecutionSettings,
    environment: Mapping[str, str],
    command_environment: Mapping[str, str],
    workspaces: Workspaces,
    *,
    kill_grace_s: float,
    large_leftovers: DeferredRemoval,
) -> AsyncIterator[Executor]:
    """Open the executor, and close it at the end. Raises ``StartupError``.

    Scripts see ``environment``, the commands of a batch system ``command_environment``.
    """
    if not batch.is_used:
        async with open_local_executor(
            execution,
            environment,
            workspaces,
            kill_grace_s=kill_grace_s,
            large_leftovers=large_leftovers,
        ) as local:
            yield local
        return
    commands = Commands({**environment, **command_environment})
    yield BatchExecutor(
        _scheduler(batch, commands), workspaces, environment, kill_grace_s=kill_grace_s
    )


def _scheduler(batch: BatchSettings, commands: Commands) -> Scheduler:
    if batch.executor is ExecutorKind.SLURM:
        return Slurm(commands, batch.options)
    return GridEngine(commands, batch.options)
