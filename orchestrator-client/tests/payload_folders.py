"""Workspaces and runs without a client around them."""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

from job_orchestrator.client.executors.base import Execution, Outcome
from job_orchestrator.client.executors.local.executor import LocalExecutor
from job_orchestrator.client.workspace.layout import Workspace, Workspaces


def new_workspace(workspaces: Workspaces, name: str, script: str = "exit 0\n") -> Workspace:
    """A workspace as a submit leaves it."""
    workspace = workspaces.of(name)
    workspace.work.mkdir(parents=True)
    (workspace.work / "run.sh").write_text(script)
    workspace.complete()
    return workspace


ENDLESS_BYTES = 64 << 20


def make_endless(work: Path) -> None:
    """Fill a folder with what takes little room, but very long to pack: links to one file."""
    links = min(shutil.disk_usage(work).total // 2 // ENDLESS_BYTES, 800)
    (work / "endless").write_bytes(b"endless " * (ENDLESS_BYTES // 8))
    for number in range(links):
        (work / f"endless{number}").symlink_to("endless")


class Runs:
    """Starts scripts with an executor and remembers them, so that a test leaves none."""

    def __init__(self, workspaces: Workspaces, executor: LocalExecutor) -> None:
        self.workspaces = workspaces
        self.executor = executor
        self._ends: list[tuple[Execution, asyncio.Task[Outcome]]] = []

    async def start(self, script: str) -> tuple[Workspace, Execution, "asyncio.Task[Outcome]"]:
        """Start a script: its workspace, its execution, and its outcome to come."""
        name = f"run-{len(self._ends)}"
        workspace = await asyncio.to_thread(new_workspace, self.workspaces, name, script)
        execution = await self.executor.start(workspace)
        outcome = asyncio.create_task(execution.wait())
        self._ends.append((execution, outcome))
        return workspace, execution, outcome

    async def end_all(self) -> None:
        """End what still runs."""
        for execution, outcome in self._ends:
            await execution.terminate()
            await outcome


async def until(what: Callable[[], bool]) -> None:
    """Wait for something that tells nobody when it happens."""
    async with asyncio.timeout(20):
        while not await asyncio.to_thread(what):  # noqa: ASYNC110 (there is no event)
            await asyncio.sleep(0.01)


async def until_there(path: Path) -> None:
    """Wait for a file that a script makes."""
    await until(path.exists)
