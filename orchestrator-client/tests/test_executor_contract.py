"""Contract of executors, for each implementation and each mechanism of the local executor.

A further implementation is one more entry of ``IMPLEMENTATIONS``.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import psutil
import pytest

from job_orchestrator.client.executors.base import (
    Executor,
    RunId,
    RunPhase,
    RunRefused,
    RunRequest,
)
from job_orchestrator.client.executors.batch.executor import BatchExecutor
from job_orchestrator.client.executors.batch.scheduler import Scheduler
from job_orchestrator.client.executors.local.executor import LocalExecutor
from job_orchestrator.client.executors.monitor import RunMonitor
from job_orchestrator.client.workspace.layout import Workspaces
from mechanisms import MECHANISMS, cgroups_of, sandbox_of
from payload_folders import Runs, new_workspace, until, until_there
from polled_executor import BatchSystem, PolledExecutor
from slurm_cluster import FAST

# Contains the pid: another run of the tests on the same machine must not be found.
SLEEP = f"sleep 46{os.getpid()}"

OpenExecutor = Callable[[], AbstractAsyncContextManager[Executor]]
"""Opens an executor on the workspaces of the test, as a start of jo-client does."""


def local_with(mechanism: str) -> Callable[[Workspaces], OpenExecutor]:
    def of(workspaces: Workspaces) -> OpenExecutor:
        @asynccontextmanager
        async def open_it() -> AsyncIterator[Executor]:
            cgroups = await asyncio.to_thread(cgroups_of, mechanism, workspaces.root)
            sandbox = await asyncio.to_thread(sandbox_of, mechanism, workspaces.root)
            yield LocalExecutor(
                workspaces, {"PATH": os.defpath}, kill_grace_s=0.2, cgroups=cgroups, **sandbox
            )
            if cgroups is not None:
                await asyncio.to_thread(cgroups.close)

        return open_it

    return of


def polled(workspaces: Workspaces) -> OpenExecutor:
    system = BatchSystem()

    @asynccontextmanager
    async def open_it() -> AsyncIterator[Executor]:
        yield PolledExecutor(system)
        for run_id in tuple(system.jobs):
            await asyncio.to_thread(system.cancel, run_id)

    return open_it


def batch_with(scheduler: Scheduler) -> Callable[[Workspaces], OpenExecutor]:
    def of(workspaces: Workspaces) -> OpenExecutor:
        @asynccontextmanager
        async def open_it() -> AsyncIterator[Executor]:
            executor = BatchExecutor(
                scheduler, workspaces, {"PATH": os.defpath}, kill_grace_s=0.2, timing=FAST
            )
            for loop in executor.loops:
                loop.start()
            yield executor
            for loop in executor.loops:
                await loop.stop()

        return open_it

    return of


IMPLEMENTATIONS: dict[str, Callable[[Workspaces], OpenExecutor]] = {
    **{f"local: {mechanism}": local_with(mechanism) for mechanism in MECHANISMS},
    "polled": polled,
}

BATCH_SYSTEMS = ("slurm", "grid_engine")
"""Fixtures with the real systems."""


@pytest.fixture
def workspaces(open_folder: Path) -> Workspaces:
    workspaces = Workspaces(open_folder)
    workspaces.prepare()
    workspaces.allow_traversal()
    return workspaces


@pytest.fixture(
    params=[
        *IMPLEMENTATIONS,
        *(pytest.param(system, marks=pytest.mark.batch) for system in BATCH_SYSTEMS),
    ]
)
def open_executor(request: pytest.FixtureRequest, workspaces: Workspaces) -> OpenExecutor:
    if request.param in BATCH_SYSTEMS:
        return batch_with(request.getfixturevalue(request.param))(workspaces)
    return IMPLEMENTATIONS[request.param](workspaces)


@pytest.fixture
async def runs(
    open_executor: OpenExecutor, workspaces: Workspaces
) -> AsyncIterator[Runs[Executor]]:
    async with open_executor() as executor:
        await executor.recover(())
        runs = Runs(workspaces, executor)
        runs.monitor.loop.start()
        yield runs
        await runs.end_all()
        await runs.monitor.loop.stop()
        await executor.close()


def sleeping(script_command: str = SLEEP) -> list[int]:
    command = script_command.split()
    found = []
    for process in psutil.process_iter():
        try:
            if process.cmdline() == command and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


@pytest.mark.parametrize(
    ("first_line", "code"),
    [
        ("", 5),
        ("#!/bin/bash", 5),
        ("#!/bin/bash -e", 1),
        ("#!/bin/sh -e", 1),
        ("#!/usr/bin/env -S bash -e", 1),
        ("#!/usr/bin/env -S CODE=6 bash", 6),
    ],
)
async def test_script_is_run_as_its_first_line_says(
    runs: Runs[Executor], first_line: str, code: int
) -> None:
    run = await runs.start(f"{first_line}\nfalse\nexit ${{CODE:-5}}\n")
    assert (await run.outcome()).exit_code == code


@pytest.mark.parametrize(
    ("script", "code", "number"),
    [("exit 0", 0, None), ("exit 7", 7, None), ("kill -KILL $$", 137, 9)],
)
async def test_run_that_ended_has_its_exit_code_and_signal(
    runs: Runs[Executor], script: str, code: int, number: int | None
) -> None:
    run = await runs.start(script + "\n")
    state = await run.over
    assert state.phase is RunPhase.ENDED
    assert state.outcome is not None
    assert (state.outcome.exit_code, state.outcome.signal) == (code, number)
    assert 0 < state.outcome.started_at <= state.outcome.ended_at


async def test_run_begins_in_its_work_folder_and_its_output_is_in_the_workspace(
    runs: Runs[Executor],
) -> None:
    run = await runs.start("pwd; echo bad >&2\n")
    await run.over
    assert run.workspace.stdout.read_text() == f"{run.workspace.work}\n"
    assert run.workspace.stderr.read_text() == "bad\n"


async def test_submit_repeated_with_the_same_id_runs_the_script_once(
    runs: Runs[Executor],
) -> None:
    run = await runs.start("echo run; touch up; until [ -e go ]; do sleep 0.01; done\n")
    await until_there(run.workspace.work / "up")
    await runs.executor.submit(RunRequest(run.run_id, run.workspace))
    await asyncio.to_thread((run.workspace.work / "go").touch)
    assert (await run.outcome()).exit_code == 0
    assert run.workspace.stdout.read_text() == "run\n"


async def test_run_without_a_workspace_is_refused(runs: Runs[Executor]) -> None:
    missing = runs.workspaces.of("missing")
    with pytest.raises(RunRefused):
        await runs.executor.submit(RunRequest(RunId("missing"), missing))


async def test_poll_returns_the_states_of_many_runs(runs: Runs[Executor]) -> None:
    going = [await runs.start(f"{SLEEP}\n") for _ in range(2)]
    ended = await runs.start("exit 3\n")
    await ended.over
    unknown = RunId("unknown")
    states = await runs.executor.poll([*(run.run_id for run in going), ended.run_id, unknown])
    assert [states[run.run_id].phase for run in going] == [RunPhase.RUNNING, RunPhase.RUNNING]
    outcome = states[ended.run_id].outcome
    assert outcome is not None
    assert outcome.exit_code == 3
    # No outcome is made up for a run that the executor does not know.
    assert unknown not in states or states[unknown].phase in (RunPhase.LOST, RunPhase.UNKNOWN)


async def test_cancel_ends_the_script_and_its_children(runs: Runs[Executor]) -> None:
    run = await runs.start(f"trap '' TERM; {SLEEP} & touch up; {SLEEP}; {SLEEP}\n")
    await until_there(run.workspace.work / "up")
    other = await runs.start(f"touch up; exec {SLEEP}\n")
    await until_there(other.workspace.work / "up")
    await until(lambda: len(sleeping()) == 3)
    await run.cancel()
    assert len(await asyncio.to_thread(sleeping)) == 1
    assert (await run.over).over
    assert not other.over.done()


async def test_cancel_right_after_submit_leaves_nothing(
    runs: Runs[Executor], workspaces: Workspaces
) -> None:
    workspace = await asyncio.to_thread(new_workspace, workspaces, "early", f"{SLEEP}\n")
    with runs.monitor.watching(RunId("early")):
        await runs.executor.submit(RunRequest(RunId("early"), workspace))
        await runs.executor.cancel(RunId("early"))
        assert await asyncio.to_thread(sleeping) == []
        assert (await runs.monitor.over(RunId("early"))).over


async def test_cancel_of_a_run_that_is_over_or_was_never_submitted_is_no_error(
    runs: Runs[Executor],
) -> None:
    run = await runs.start("exit 4\n")
    await run.over
    await run.cancel()
    await runs.executor.cancel(RunId("never"))
    state = (await runs.executor.poll([run.run_id]))[run.run_id]
    assert state.outcome is not None
    assert state.outcome.exit_code == 4


async def test_run_that_was_forgotten_has_no_outcome_any_more(runs: Runs[Executor]) -> None:
    run = await runs.start("exit 4\n")
    await run.over
    runs.executor.forget(run.run_id)
    states = await runs.executor.poll([run.run_id])
    assert run.run_id not in states or states[run.run_id].outcome is None
    runs.executor.forget(run.run_id)


async def test_recover_after_a_crash_takes_over_runs_that_survive_and_ends_others(
    open_executor: OpenExecutor, runs: Runs[Executor]
) -> None:
    run = await runs.start(f"touch up; {SLEEP}\n")
    await until_there(run.workspace.work / "up")
    await until(lambda: len(sleeping()) == 1)
    # The first executor is not closed, as in a crash.
    async with open_executor() as restarted:
        recovered = await restarted.recover([run.run_id])
        if restarted.survives_restart:
            assert list(recovered) == [run.run_id]
            monitor = RunMonitor(restarted)
            monitor.loop.start()
            with monitor.watching(run.run_id):
                assert (await monitor.started(run.run_id)).phase is RunPhase.RUNNING
                await restarted.cancel(run.run_id)
                assert (await monitor.over(run.run_id)).over
            await monitor.loop.stop()
        else:
            assert list(recovered) == []
        assert await asyncio.to_thread(sleeping) == []
        await restarted.close()


async def test_close_leaves_only_runs_that_survive(runs: Runs[Executor]) -> None:
    run = await runs.start(f"touch up; {SLEEP}\n")
    await until_there(run.workspace.work / "up")
    await until(lambda: len(sleeping()) == 1)
    await runs.executor.close()
    assert bool(await asyncio.to_thread(sleeping)) is runs.executor.survives_restart
    run.over.cancel()
    await runs.executor.cancel(run.run_id)
    runs.started.remove(run)


async def test_verify_accepts_what_works(runs: Runs[Executor]) -> None:
    await runs.executor.verify()


async def test_capacity_is_a_number_or_unlimited(runs: Runs[Executor]) -> None:
    capacity = await runs.executor.capacity()
    assert capacity is None or capacity >= 0


async def test_runs_that_were_taken_over_are_followed_once_they_are_submitted_again(
    open_executor: OpenExecutor, runs: Runs[Executor]
) -> None:
    run = await runs.start(f"touch up; {SLEEP}\n")
    await until_there(run.workspace.work / "up")
    async with open_executor() as restarted:
        if await restarted.recover([run.run_id]):
            monitor = RunMonitor(restarted)
            monitor.loop.start()
            with monitor.watching(run.run_id):
                await restarted.submit(RunRequest(run.run_id, run.workspace))
                async with asyncio.timeout(20):
                    state = await monitor.started(run.run_id)
                assert state.phase is RunPhase.RUNNING
            await monitor.loop.stop()
            await restarted.cancel(run.run_id)
        await restarted.close()
