"""Workspaces and runs without a client around them."""

import asyncio
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from job_orchestrator.client.executors.base import Executor, Outcome, RunId, RunRequest, RunState
from job_orchestrator.client.executors.monitor import RunMonitor
from job_orchestrator.client.payloads.fitness import Fitness
from job_orchestrator.client.workspace.layout import Workspace, Workspaces

E = TypeVar("E", bound=Executor)


def new_workspace(workspaces: Workspaces, name: str, script: str = "exit 0\n") -> Workspace:
    """Create a workspace as a submit leaves it."""
    workspace = workspaces.of(name)
    workspace.work.mkdir(parents=True)
    (workspace.work / "run.sh").write_text(script)
    workspace.complete()
    return workspace


def always_fit() -> Fitness:
    """Create the record of a machine whose faults nobody follows."""

    async def nothing(_: str = "") -> None:
        pass

    return Fitness(nothing, nothing)


ENDLESS_BYTES = 64 << 20


def make_endless(work: Path) -> None:
    """Fill a folder with links to one file: little space, but very long to pack."""
    links = min(shutil.disk_usage(work).total // 2 // ENDLESS_BYTES, 800)
    (work / "endless").write_bytes(b"endless " * (ENDLESS_BYTES // 8))
    for number in range(links):
        (work / f"endless{number}").symlink_to("endless")


@dataclass(frozen=True)
class StartedRun:
    """A run that was submitted; ``over`` gives its final state."""

    executor: Executor
    run_id: RunId
    workspace: Workspace
    pid: int
    over: "asyncio.Task[RunState]"

    async def outcome(self) -> Outcome:
        """Wait for the end of the run. Fails unless the run has an outcome."""
        state = await self.over
        assert state.outcome is not None, state
        return state.outcome

    async def cancel(self) -> None:
        """End the run."""
        await self.executor.cancel(self.run_id)


class Runs(Generic[E]):
    """Submits scripts to an executor and records them, so that a test leaves none running."""

    def __init__(self, workspaces: Workspaces, executor: E) -> None:
        self.workspaces = workspaces
        self.executor = executor
        self.monitor = RunMonitor(executor)
        self.started: list[StartedRun] = []

    async def start(self, script: str) -> StartedRun:
        """Submit a script, and wait until it has begun."""
        run_id = RunId(f"run-{len(self.started)}")
        workspace = await asyncio.to_thread(new_workspace, self.workspaces, run_id, script)
        started: asyncio.Future[RunState] = asyncio.get_running_loop().create_future()
        over = asyncio.create_task(self._run(RunRequest(run_id, workspace), started))
        await asyncio.wait({started, over}, return_when=asyncio.FIRST_COMPLETED)
        if not started.done():
            over.result()  # raises the error of the submission
        run = StartedRun(self.executor, run_id, workspace, started.result().pid, over)
        self.started.append(run)
        return run

    async def _run(self, request: RunRequest, started: "asyncio.Future[RunState]") -> RunState:
        with self.monitor.watching(request.run_id):
            await self.executor.submit(request)
            started.set_result(await self.monitor.started(request.run_id))
            return await self.monitor.over(request.run_id)

    async def end_all(self) -> None:
        """End the runs that are not over."""
        for run in self.started:
            await run.cancel()
            await run.over


async def until(condition: Callable[[], bool]) -> None:
    """Poll until a condition holds that no event reports."""
    async with asyncio.timeout(60):
        while not await asyncio.to_thread(condition):  # noqa: ASYNC110 (there is no event)
            await asyncio.sleep(0.01)


async def until_there(path: Path) -> None:
    """Wait for a file that a script creates."""
    await until(path.exists)
