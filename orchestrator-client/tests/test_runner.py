"""Runner with an executor that is polled: all that the runner needs is in the contract."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from job_orchestrator.client.errors import PayloadNotFound
from job_orchestrator.client.executors.base import RunId
from job_orchestrator.client.model import PayloadRow
from job_orchestrator.client.payloads.runner import Runner
from job_orchestrator.client.payloads.store import PayloadStore, open_payloads
from job_orchestrator.client.results.packer import Packer
from job_orchestrator.client.workspace.layout import Workspaces
from job_orchestrator.common.runtime.backoff import Backoff
from job_orchestrator.common.status import PayloadStatus
from payload_folders import always_fit, new_workspace, until, until_there
from polled_executor import BatchSystem, PolledExecutor

RUN_ID = RunId("u1")


class World:
    """A runner on a batch system, with a store whose changes are recorded."""

    def __init__(self, store: PayloadStore, workspaces: Workspaces) -> None:
        self.store = store
        self.workspaces = workspaces
        self.system = BatchSystem()
        self.executor = PolledExecutor(self.system)
        self.runner = Runner(
            store,
            workspaces,
            self.executor,
            Packer(),
            fitness=always_fit(),
            slots=2,
            backoff=Backoff.exponential(0.01, 0.02),
        )
        self.changes: list[PayloadRow] = []
        store.subscribe(self.runner.on_payload_changed)
        store.subscribe(self.changes.append)

    async def submit(self, script: str, time_limit_s: float | None = None) -> None:
        """Add payload 1, and start it in a pass of the runner."""
        await asyncio.to_thread(new_workspace, self.workspaces, RUN_ID, script)
        await self.store.add(1, RUN_ID, None, time_limit_s=time_limit_s)

    async def until_status(self, status: PayloadStatus) -> PayloadRow:
        """Wait until the store has notified this status of payload 1."""
        await until(lambda: self.changes[-1].status is status)
        return self.changes[-1]

    @asynccontextmanager
    async def loops(self) -> AsyncIterator[None]:
        """Run the loops of the runner within the block."""
        for loop in self.runner.loops:
            loop.start()
        yield
        await asyncio.gather(*(loop.stop() for loop in self.runner.loops))
        await self.runner.stop()


@pytest.fixture
async def world(workspaces: Workspaces) -> AsyncIterator[World]:
    async with open_payloads() as store:
        world = World(store, workspaces)
        async with world.loops():
            yield world
        for run_id in tuple(world.system.jobs):
            await asyncio.to_thread(world.system.cancel, run_id)


async def test_payload_runs_and_its_job_is_forgotten_once_its_end_is_stored(world: World) -> None:
    await world.submit("exit 3\n")
    row = await world.until_status(PayloadStatus.FAILED)
    assert (row.exit_code, row.message) == (3, "run.sh exited with code 3")
    assert world.workspaces.of(RUN_ID).results.exists()
    await until(lambda: world.system.jobs == {})


async def test_lost_run_is_given_back_instead_of_failed(world: World) -> None:
    await world.submit("touch up; sleep 1041\n")
    await until_there(world.workspaces.of(RUN_ID).work / "up")
    await asyncio.to_thread(world.system.lose, RUN_ID)
    row = await world.until_status(PayloadStatus.CLEANED)
    assert row.message == "node failure"
    with pytest.raises(PayloadNotFound):
        await world.store.get(1)


async def test_killed_payload_whose_run_is_lost_is_killed(world: World) -> None:
    world.system.queue_is_open = False
    await world.submit("exit 0\n")
    await until(lambda: RUN_ID in world.system.jobs)
    row, had_not_ended = await world.runner.kill(1)
    assert (row.status, had_not_ended) == (PayloadStatus.KILLED, True)
    assert row.message == "Terminated on request"


async def test_time_limit_counts_from_the_start_of_the_script(world: World) -> None:
    world.system.queue_is_open = False
    await world.submit("touch up; sleep 1042\n", time_limit_s=0.3)
    await until(lambda: RUN_ID in world.system.jobs)
    await asyncio.sleep(0.5)
    assert world.changes[-1].status is PayloadStatus.RUNNING
    world.system.queue_is_open = True
    row = await world.until_status(PayloadStatus.FAILED)
    assert row.message == "Time limit of 0.3 s reached"


async def test_submission_without_an_answer_is_repeated_and_runs_once(world: World) -> None:
    world.system.answers = False
    await world.submit("echo run; until [ -e go ]; do sleep 0.01; done\n")
    workspace = world.workspaces.of(RUN_ID)
    await until_there(workspace.stdout)
    await asyncio.sleep(0.1)
    world.system.answers = True
    (workspace.work / "go").touch()
    await world.until_status(PayloadStatus.COMPLETED)
    assert workspace.stdout.read_text() == "run\n"


async def test_payload_killed_while_its_submission_is_in_doubt_does_not_go_on(
    world: World,
) -> None:
    world.system.answers = False
    await world.submit("touch up; sleep 1043\n")
    await until_there(world.workspaces.of(RUN_ID).work / "up")
    process = world.system.jobs[RUN_ID].process
    assert process is not None
    killed = asyncio.create_task(world.runner.kill(1))
    world.system.answers = True
    row, _ = await killed
    assert row.status is PayloadStatus.KILLED
    assert process.poll() is not None


async def test_executor_that_does_not_answer_a_poll_ends_no_payload(world: World) -> None:
    await world.submit("touch up; until [ -e go ]; do sleep 0.01; done\n")
    work = world.workspaces.of(RUN_ID).work
    await until_there(work / "up")
    world.system.answers = False
    await asyncio.sleep(0.1)
    assert world.changes[-1].status is PayloadStatus.RUNNING
    (work / "go").touch()
    world.system.answers = True
    await world.until_status(PayloadStatus.COMPLETED)


async def test_executor_without_capacity_starts_no_payload(world: World) -> None:
    world.executor.free = 0
    await world.submit("exit 0\n")
    await world.runner.run_pass()
    assert world.changes[-1].status is PayloadStatus.PREPARED
    world.executor.free = 1
    await world.runner.run_pass()
    await world.until_status(PayloadStatus.COMPLETED)


async def test_stop_does_not_end_runs_that_survive_a_restart(world: World) -> None:
    await world.submit("touch up; sleep 1044\n")
    await until_there(world.workspaces.of(RUN_ID).work / "up")
    await world.runner.stop()
    process = world.system.jobs[RUN_ID].process
    assert process is not None
    assert process.poll() is None
    assert (await world.store.get(1)).status is PayloadStatus.RUNNING
