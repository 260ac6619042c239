"""Batch executor on a real Slurm: what is special of a batch system, beyond the contract."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from job_orchestrator.client.executors.base import (
    ExecutorUnavailable,
    RunId,
    RunPhase,
    RunRefused,
    RunRequest,
    RunState,
)
from job_orchestrator.client.executors.batch.commands import Commands
from job_orchestrator.client.executors.batch.executor import BatchExecutor
from job_orchestrator.client.executors.batch.scheduler import Scheduler
from job_orchestrator.client.executors.batch.slurm import Slurm
from job_orchestrator.client.model import NO_SHARE, Share
from job_orchestrator.client.workspace.layout import Workspaces
from payload_folders import Runs, StartedRun, new_workspace, until, until_there
from slurm_cluster import FAST, SlurmCluster

pytestmark = pytest.mark.batch


@pytest.fixture
def workspaces(open_folder: Path) -> Workspaces:
    workspaces = Workspaces(open_folder)
    workspaces.prepare()
    return workspaces


@asynccontextmanager
async def opened(
    scheduler: Scheduler, workspaces: Workspaces, *wanted: RunId
) -> AsyncIterator[BatchExecutor]:
    """Open an executor, as a start of jo-client does."""
    executor = BatchExecutor(
        scheduler, workspaces, {"PATH": os.defpath}, kill_grace_s=1.0, timing=FAST
    )
    await executor.recover(wanted)
    for loop in executor.loops:
        loop.start()
    yield executor
    for loop in executor.loops:
        await loop.stop()


@pytest.fixture
async def runs(slurm: Slurm, workspaces: Workspaces) -> AsyncIterator[Runs[BatchExecutor]]:
    async with opened(slurm, workspaces) as executor:
        runs = Runs(workspaces, executor)
        yield runs
        await runs.end_all()


async def begun(runs: Runs[BatchExecutor], script: str) -> StartedRun:
    run = await runs.start(f"touch up\n{script}\n")
    await until_there(run.workspace.work / "up")
    return run


async def requested(
    workspaces: Workspaces,
    name: str,
    script: str = "exit 0\n",
    share: Share = NO_SHARE,
    time_limit_s: float | None = None,
) -> RunRequest:
    workspace = await asyncio.to_thread(new_workspace, workspaces, name, script)
    return RunRequest(RunId(name), workspace, time_limit_s, share)


@asynccontextmanager
async def closed_queue(cluster: SlurmCluster) -> AsyncIterator[None]:
    """Let jobs wait in the queue within the block."""

    async def set_state(state: str) -> None:
        await asyncio.to_thread(
            cluster.command, "scontrol", "update", "PartitionName=main", f"State={state}"
        )

    await set_state("DOWN")
    try:
        yield
    finally:
        await set_state("UP")


async def test_term_reaches_the_script_which_can_end_in_its_own_way(
    runs: Runs[BatchExecutor],
) -> None:
    run = await begun(runs, "trap 'echo bye; exit 3' TERM; sleep 1051 & wait")
    await run.cancel()
    assert (await run.outcome()).exit_code == 3
    assert run.workspace.stdout.read_text() == "bye\n"


async def test_run_that_waits_shows_the_reason_of_the_system_and_is_cancelled_in_the_queue(
    slurm_daemons: SlurmCluster, slurm: Slurm, workspaces: Workspaces
) -> None:
    states: list[RunState] = []
    request = await requested(workspaces, "waits", "touch up\n")
    async with closed_queue(slurm_daemons), opened(slurm, workspaces) as executor:
        executor.subscribe(lambda run_id, state: states.append(state))
        await executor.submit(request)
        await until(lambda: bool(states[-1].reason))
        assert states[-1] == RunState(
            RunPhase.WAITING, reason="Waits in the queue of Slurm (PartitionDown)"
        )
        await executor.cancel(request.run_id)
        assert states[-1].phase is RunPhase.LOST
        await until(lambda: not _live(slurm_daemons))
    assert not (request.workspace.work / "up").exists()


async def test_job_that_was_submitted_twice_runs_its_script_once(
    runs: Runs[BatchExecutor], slurm_daemons: SlurmCluster
) -> None:
    run = await begun(runs, "echo run; until [ -e go ]; do sleep 0.05; done")
    job_script = run.workspace.root / "job.sh"
    await asyncio.to_thread(slurm_daemons.command, "sbatch", "--wait", str(job_script))
    (run.workspace.work / "go").touch()
    assert (await run.outcome()).exit_code == 0
    assert run.workspace.stdout.read_text() == "run\n"


async def test_run_of_a_failed_node_is_evicted_and_not_failed(
    runs: Runs[BatchExecutor], slurm_daemons: SlurmCluster
) -> None:
    run = await begun(runs, "sleep 1052")
    await asyncio.to_thread(slurm_daemons.fail_node)
    state = await run.over
    await asyncio.to_thread(slurm_daemons.until_idle)
    assert state.phase is RunPhase.EVICTED
    assert "NODE_FAIL" in state.reason


async def test_what_can_never_run_is_refused_in_the_words_of_the_system(
    workspaces: Workspaces, slurm: Slurm
) -> None:
    request = await requested(workspaces, "refused")
    elsewhere = Slurm(slurm.commands, ("--partition=nowhere",))
    async with opened(elsewhere, workspaces) as executor:
        with pytest.raises(RunRefused, match=r"Slurm: .*invalid partition specified: nowhere"):
            await executor.submit(request)


async def test_jobs_ask_for_what_their_payloads_ask_for(
    runs: Runs[BatchExecutor], slurm: Slurm, workspaces: Workspaces, slurm_daemons: SlurmCluster
) -> None:
    share = Share(2.5, 100 << 20)
    request = await requested(workspaces, "sized", "sleep 1053\n", share, time_limit_s=3600.0)
    async with opened(slurm, workspaces) as executor:
        await executor.submit(request)
        shown = await asyncio.to_thread(
            slurm_daemons.command, "squeue", "--noheader", "--format=%C %m %l"
        )
        await executor.cancel(request.run_id)
    assert shown.split() == ["3", "100M", "1:03:00"]


async def test_runs_go_on_while_the_daemons_are_away(
    runs: Runs[BatchExecutor], slurm_daemons: SlurmCluster, workspaces: Workspaces
) -> None:
    ends_alone = await begun(runs, "until [ -e go ]; do sleep 0.05; done; exit 5")
    goes_on = await begun(runs, "until [ -e go ]; do sleep 0.05; done; exit 6")
    late = await requested(workspaces, "late", "exit 7\n")

    await until(lambda: slurm_daemons.has_saved(b"run-1"))
    await asyncio.to_thread(slurm_daemons.kill, "slurmctld")
    await asyncio.to_thread(slurm_daemons.kill, "slurmd")
    (ends_alone.workspace.work / "go").touch()
    assert (await ends_alone.outcome()).exit_code == 5
    quick = BatchExecutor(
        Slurm(Commands(slurm_daemons.environment, timeout_s=1.0)),
        workspaces,
        {},
        kill_grace_s=1.0,
        timing=FAST,
    )
    with pytest.raises(ExecutorUnavailable):
        await quick.submit(late)
    assert quick.problem

    await asyncio.to_thread(slurm_daemons.start, "slurmctld")
    await asyncio.to_thread(slurm_daemons.start, "slurmd")
    await runs.executor.submit(late)
    await until(lambda: runs.executor.problem == "")
    assert not goes_on.over.done()
    (goes_on.workspace.work / "go").touch()
    assert (await goes_on.outcome()).exit_code == 6
    marks = workspaces.data_path / "marks"
    await until(lambda: any(path.name.endswith("late.exit") for path in marks.iterdir()))


async def test_new_process_takes_over_runs_and_cancels_what_no_payload_has(
    slurm: Slurm, workspaces: Workspaces, slurm_daemons: SlurmCluster
) -> None:
    async with opened(slurm, workspaces) as first:
        for name in ("goes-on", "ended", "stray"):
            script = "until [ -e go ]; do sleep 0.05; done; exit 8\n"
            await first.submit(await requested(workspaces, name, script))
        works = [workspaces.of(name).root for name in ("goes-on", "ended", "stray")]
        await until(lambda: all((root / "taken").exists() for root in works))
    (workspaces.of("ended").work / "go").touch()
    ended = workspaces.data_path / "marks"
    await until(lambda: any(path.name.endswith("ended.exit") for path in ended.iterdir()))

    async with opened(slurm, workspaces, RunId("goes-on"), RunId("ended")) as second:
        states = await second.poll([RunId("goes-on"), RunId("ended"), RunId("stray")])
        assert {run_id: state.phase for run_id, state in states.items()} == {
            "goes-on": RunPhase.RUNNING,
            "ended": RunPhase.ENDED,
        }
        outcome = states[RunId("ended")].outcome
        assert outcome is not None
        assert outcome.exit_code == 8
        await until(lambda: len(_live(slurm_daemons)) == 1)
        await second.cancel(RunId("goes-on"))


async def test_marks_are_removed_only_when_a_run_is_forgotten(runs: Runs[BatchExecutor]) -> None:
    run = await runs.start("exit 0\n")
    await run.over
    marks = runs.workspaces.data_path / "marks"
    assert len(await asyncio.to_thread(os.listdir, marks)) == 2
    runs.executor.forget(run.run_id)
    await until(lambda: not any(marks.iterdir()))


def _live(cluster: SlurmCluster) -> list[str]:
    with contextlib.suppress(AssertionError):
        states = "PENDING,RUNNING,COMPLETING"
        return cluster.command("squeue", "--noheader", f"--states={states}").splitlines()
    return []
