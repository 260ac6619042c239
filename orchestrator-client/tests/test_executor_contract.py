"""Contract of ``Executor``: the properties that the payload runner relies on.

Each test runs with each implementation. It observes a run as the runner does, through the protocol
and the files of the workspace, so it also applies to an executor that runs payloads on another
machine. To test a further implementation, add it to ``IMPLEMENTATIONS``.
"""

import asyncio
import contextlib
import gc
import os
import signal
import time
import warnings
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psutil
import pytest

from job_orchestrator.client.executors.base import (
    Executor,
    Outcome,
    RunId,
    RunPhase,
    RunRefused,
    RunRequest,
    RunState,
)
from job_orchestrator.client.executors.local.executor import LocalExecutor
from job_orchestrator.client.executors.monitor import RunMonitor
from job_orchestrator.client.workspace.layout import Workspaces
from mechanisms import MECHANISMS, cgroups_of, sandbox_of
from payload_folders import new_workspace, until, until_there
from running_client import zombies

TIMEOUT_S = 30.0
UNCHANGED_S = 0.3
"""How long a file of heartbeats must stay as it is before its writer counts as ended."""

NOT_KNOWN = {RunPhase.LOST, RunPhase.UNKNOWN}
"""Phases of a run of which the executor has no record."""

BEATING = "while :; do echo >> {}; sleep 0.01; done"
RESISTING = (
    f"setsid bash -c \"trap '' TERM HUP; {BEATING.format('beat-of-daemon')}\" &\n"
    f"{BEATING.format('beat')}\n"
)
"""Script that runs until it is ended, with a daemon that ignores TERM."""


@dataclass(frozen=True)
class Implementation:
    """Implementation under test.

    ``open`` creates an executor. All of them use the same workspaces, as the processes of jo-client
    do that run one after the other. ``notifies`` is true if listeners are called for each change.
    """

    workspaces: Workspaces
    open: Callable[[], Executor]
    notifies: bool


@asynccontextmanager
async def local(mechanism: str, workspaces: Workspaces) -> AsyncIterator[Implementation]:
    """Provide executors of processes of this machine, held together by ``mechanism``."""
    cgroups = await asyncio.to_thread(cgroups_of, mechanism, workspaces.root)
    sandbox = await asyncio.to_thread(sandbox_of, mechanism, workspaces.root)

    def create() -> LocalExecutor:
        return LocalExecutor(
            workspaces, {"PATH": os.defpath}, kill_grace_s=0.2, cgroups=cgroups, **sandbox
        )

    yield Implementation(workspaces, create, notifies=True)
    if scripts := await asyncio.to_thread(zombies):
        reap(scripts)
    if cgroups is not None:
        await asyncio.to_thread(cgroups.clear)
        await asyncio.to_thread(cgroups.close)


def reap(scripts: Sequence[psutil.Process]) -> None:
    """Reap the ended scripts of closed executors, as init does after the end of jo-client."""
    for script in scripts:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(script.pid, 0)
    with warnings.catch_warnings():
        # Popen warns when it is collected and its process was not waited for.
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


IMPLEMENTATIONS: dict[str, Callable[[Workspaces], AbstractAsyncContextManager[Implementation]]] = {
    f"local, {mechanism}": partial(local, mechanism) for mechanism in MECHANISMS
}


@dataclass
class Recorder:
    """Listener that records the notifications it gets."""

    notifications: list[tuple[RunId, RunState]] = field(default_factory=list)

    def __call__(self, run_id: RunId, state: RunState) -> None:
        self.notifications.append((run_id, state))

    def has(self, count: int) -> bool:
        """Return whether so many notifications have come."""
        return len(self.notifications) >= count


@dataclass
class World:
    """Executors that a test has started, and the runs that it has submitted."""

    implementation: Implementation
    executors: list[Executor] = field(default_factory=list)

    @property
    def executor(self) -> Executor:
        """The executor that was started last."""
        return self.executors[-1]

    async def start(self) -> list[RunId]:
        """Start an executor as jo-client does at its start; return the runs that it found."""
        executor = self.implementation.open()
        self.executors.append(executor)
        found = await executor.recover()
        await executor.verify()
        return list(found)

    async def request(self, name: str, script: str) -> RunRequest:
        """Create a workspace, and return the request to run its script."""
        workspaces = self.implementation.workspaces
        workspace = await asyncio.to_thread(new_workspace, workspaces, name, script)
        return RunRequest(RunId(name), workspace)

    async def submit(self, name: str, script: str) -> RunRequest:
        """Submit a script; return the request."""
        request = await self.request(name, script)
        await self.executor.submit(request)
        return request

    async def start_resisting(self, name: str) -> RunRequest:
        """Submit a script that resists TERM, and wait until all its processes run."""
        request = await self.submit(name, RESISTING)
        for file in self.beats(request):
            await until_there(file)
        return request

    async def poll(self, *names: str) -> list[RunState]:
        """Poll runs in one call; return their states in the same order."""
        run_ids = [RunId(name) for name in names]
        states = await self.executor.poll(run_ids)
        assert set(states) <= set(run_ids)
        return [states.get(run_id, RunState(RunPhase.UNKNOWN)) for run_id in run_ids]

    async def over(self, name: str) -> RunState:
        """Poll until a run is over; return its final state."""
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                (state,) = await self.poll(name)
                if state.over:
                    return state
                await asyncio.sleep(0.01)

    async def outcome(self, name: str) -> Outcome:
        """Poll until a run is over; return its outcome. Fails unless it has one."""
        state = await self.over(name)
        assert state.phase is RunPhase.ENDED, state
        assert state.outcome is not None
        return state.outcome

    @staticmethod
    def beats(request: RunRequest) -> list[Path]:
        """Return the files of heartbeats, one for each process of the resisting script."""
        return [request.workspace.work / name for name in ("beat", "beat-of-daemon")]

    async def assert_nothing_runs(self, request: RunRequest) -> None:
        """Check that no process of the resisting script adds a heartbeat."""
        before = [file.stat().st_size for file in self.beats(request)]
        await asyncio.sleep(UNCHANGED_S)
        assert [file.stat().st_size for file in self.beats(request)] == before


@pytest.fixture(params=IMPLEMENTATIONS)
async def world(request: pytest.FixtureRequest, open_folder: Path) -> AsyncIterator[World]:
    """World with one executor of each implementation."""
    workspaces = Workspaces(open_folder)
    await asyncio.to_thread(workspaces.prepare)
    await asyncio.to_thread(workspaces.allow_traversal)
    async with IMPLEMENTATIONS[request.param](workspaces) as implementation:
        world = World(implementation)
        assert await world.start() == []
        yield world
        while world.executors:
            await world.executors.pop().close()


@pytest.mark.parametrize("code", [0, 7, 255])
async def test_outcome_of_a_script_that_exits_is_its_exit_code(world: World, code: int) -> None:
    earliest = time.time()
    await world.submit("a", f"exit {code}\n")
    outcome = await world.outcome("a")
    assert (outcome.exit_code, outcome.signal, outcome.limit_reached) == (code, None, "")
    assert earliest <= outcome.started_at <= outcome.ended_at <= time.time()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_outcome_of_a_script_that_a_signal_ends_is_the_signal(
    world: World, number: int
) -> None:
    await world.submit("a", f"kill -{number} $$\n")
    outcome = await world.outcome("a")
    assert (outcome.exit_code, outcome.signal) == (128 + number, number)


async def test_script_runs_in_its_work_folder_and_its_output_is_kept(world: World) -> None:
    request = await world.submit("a", "echo out; echo problem >&2; touch here\n")
    await world.outcome("a")
    assert request.workspace.stdout.read_text() == "out\n"
    assert request.workspace.stderr.read_text() == "problem\n"
    assert (request.workspace.work / "here").exists()


async def test_end_of_a_script_ends_what_it_left_before_the_run_is_over(world: World) -> None:
    daemon = RESISTING.partition("\n")[0]
    request = await world.submit(
        "a", f"{daemon}\ntouch beat; until [ -e beat-of-daemon ]; do sleep 0.01; done; exit 3\n"
    )
    assert (await world.outcome("a")).exit_code == 3
    await world.assert_nothing_runs(request)


async def test_repeated_submission_has_no_further_effect(world: World) -> None:
    request = await world.submit("a", "echo run >> log; until [ -e go ]; do sleep 0.01; done\n")
    await until_there(request.workspace.work / "log")
    await world.executor.submit(request)
    (request.workspace.work / "go").touch()
    outcome = await world.outcome("a")
    await world.executor.submit(request)
    await asyncio.sleep(UNCHANGED_S)
    assert (request.workspace.work / "log").read_text() == "run\n"
    assert await world.outcome("a") == outcome


async def test_run_without_a_workspace_is_refused_and_not_recorded(world: World) -> None:
    workspace = world.implementation.workspaces.of("missing")
    with pytest.raises(RunRefused):
        await world.executor.submit(RunRequest(RunId("missing"), workspace))
    (state,) = await world.poll("missing")
    assert state.phase in NOT_KNOWN


async def test_cancel_ends_everything_that_the_run_started(world: World) -> None:
    request = await world.start_resisting("a")
    other = await world.submit("b", "until [ -e go ]; do sleep 0.01; done\n")
    await world.executor.cancel(request.run_id)
    await world.assert_nothing_runs(request)
    state = await world.over("a")
    assert state.outcome is None or state.outcome.exit_code != 0
    (other.workspace.work / "go").touch()
    assert (await world.outcome("b")).exit_code == 0


async def test_cancel_of_a_run_that_was_never_submitted_is_not_an_error(world: World) -> None:
    await world.executor.cancel(RunId("unknown"))
    await world.submit("unknown", "exit 5\n")
    assert (await world.outcome("unknown")).exit_code == 5


async def test_cancel_of_a_run_that_is_over_keeps_its_outcome(world: World) -> None:
    request = await world.submit("a", "exit 4\n")
    outcome = await world.outcome("a")
    await world.executor.cancel(request.run_id)
    await world.executor.cancel(request.run_id)
    assert await world.outcome("a") == outcome


async def test_concurrent_cancels_all_return_when_nothing_runs(world: World) -> None:
    request = await world.start_resisting("a")
    await asyncio.gather(*(world.executor.cancel(request.run_id) for _ in range(3)))
    await world.assert_nothing_runs(request)
    await world.over("a")


async def test_poll_answers_for_many_runs_in_one_call(world: World) -> None:
    running = await world.start_resisting("running")
    for number in range(5):
        await world.submit(f"ended-{number}", f"exit {number}\n")
        await world.over(f"ended-{number}")
    names = [f"ended-{number}" for number in range(5)]
    first, unknown, *others = await world.poll("running", "unknown", *names)
    assert (first.phase, first.outcome) == (RunPhase.RUNNING, None)
    assert unknown.phase in NOT_KNOWN
    assert unknown.outcome is None
    assert [state.phase for state in others] == [RunPhase.ENDED] * 5
    assert [state.outcome.exit_code for state in others if state.outcome] == [0, 1, 2, 3, 4]
    assert await world.poll() == []
    await world.executor.cancel(running.run_id)


async def test_listeners_are_notified_of_each_phase_once_and_in_order(world: World) -> None:
    recorders = [Recorder(), Recorder()]
    for recorder in recorders:
        world.executor.subscribe(recorder)
    request = await world.submit("a", "exit 6\n")
    final = await world.over("a")
    expected = [RunPhase.RUNNING, RunPhase.ENDED] if world.implementation.notifies else []
    for recorder in recorders:
        await until(partial(recorder.has, len(expected)))
        assert [state.phase for _, state in recorder.notifications] == expected
        assert {run_id for run_id, _ in recorder.notifications} <= {request.run_id}
        assert all(state == final for _, state in recorder.notifications if state.over)


async def test_monitor_follows_a_run_from_its_start_to_its_end(world: World) -> None:
    monitor = RunMonitor(world.executor)
    request = await world.request("a", "until [ -e go ]; do sleep 0.01; done; exit 9\n")
    with monitor.watching(request.run_id):
        await world.executor.submit(request)
        monitor.loop.start()
        async with asyncio.timeout(TIMEOUT_S):
            assert (await monitor.started(request.run_id)).phase is RunPhase.RUNNING
            (request.workspace.work / "go").touch()
            state = await monitor.over(request.run_id)
        await monitor.loop.stop()
    assert state.outcome is not None
    assert state.outcome.exit_code == 9


async def test_recover_after_a_crash_finds_the_runs_or_leaves_nothing_running(
    world: World,
) -> None:
    request = await world.start_resisting("a")
    found = await world.start()  # no close before it: the first executor is left as it is
    if world.executor.survives_restart:
        assert found == [request.run_id]
        await world.executor.cancel(request.run_id)
    else:
        assert found == []
    await world.assert_nothing_runs(request)
    (state,) = await world.poll("a")
    assert state.phase is not RunPhase.RUNNING
    await world.submit("b", "exit 2\n")
    assert (await world.outcome("b")).exit_code == 2


async def test_forgotten_run_is_not_known_any_more(world: World) -> None:
    request = await world.submit("a", "exit 0\n")
    await world.outcome("a")
    world.executor.forget(request.run_id)
    world.executor.forget(request.run_id)
    (state,) = await world.poll("a")
    assert state.phase in NOT_KNOWN


async def test_run_that_is_not_over_cannot_be_forgotten(world: World) -> None:
    request = await world.start_resisting("a")
    world.executor.forget(request.run_id)
    world.executor.forget(RunId("unknown"))
    (state,) = await world.poll("a")
    assert state.phase is RunPhase.RUNNING
    await world.executor.cancel(request.run_id)
    await world.assert_nothing_runs(request)


async def test_close_ends_the_runs_unless_they_survive_a_restart(world: World) -> None:
    request = await world.start_resisting("a")
    recorder = Recorder()
    world.executor.subscribe(recorder)
    executor = world.executors.pop()
    await executor.close()
    found = await world.start()
    if executor.survives_restart:
        assert found == [request.run_id]
        await world.executor.cancel(request.run_id)
    else:
        assert found == []
    await world.assert_nothing_runs(request)
    assert recorder.notifications == []


async def test_capacity_is_not_negative_and_loops_have_distinct_names(world: World) -> None:
    capacity = await world.executor.capacity()
    assert capacity is None or capacity >= 0
    assert world.executor.poll_interval_s > 0
    names = [loop.name for loop in world.executor.loops]
    assert len(set(names)) == len(names)
