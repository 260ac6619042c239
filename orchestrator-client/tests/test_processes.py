"""Processes of a payload: all are found and ended, also those that escaped from the script."""

import asyncio
import contextlib
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from job_orchestrator.client.errors import StillRunning
from job_orchestrator.client.executors.local import processes, supervisor
from job_orchestrator.client.executors.local.executor import LocalExecutor
from job_orchestrator.client.workspace.layout import Workspaces
from job_orchestrator.common.runtime.loops import Loop
from mechanisms import MECHANISMS, cgroups_of, sandbox_of
from payload_folders import Runs, until, until_there
from running_client import adopted, exempt_from_zombies, zombies

# Contains the pid: another run of the tests on the same machine must not be found.
NUMBER = f"47{os.getpid()}"

# A daemon that left its session, folder and files and names no workspace. Only its parent would
# show which payload it belongs to, and the parent has ended.
ESCAPE = (
    "(env -i PATH=$PATH setsid bash -c"
    " 'cd /; exec </dev/null >/dev/null 2>&1; trap \"\" TERM; sleep NUMBER; true' &)\n"
    "until pgrep -f 'sleep NUMBER' > /dev/null; do sleep 0.01; done\n"
)


@pytest.fixture(params=MECHANISMS)
async def runs(
    open_folder: Path, request: pytest.FixtureRequest
) -> AsyncIterator[Runs[LocalExecutor]]:
    """Runs of an executor with each mechanism."""
    workspaces = Workspaces(open_folder)
    await asyncio.to_thread(workspaces.prepare)
    await asyncio.to_thread(workspaces.allow_traversal)
    cgroups = await asyncio.to_thread(cgroups_of, request.param, workspaces.root)
    sandbox = await asyncio.to_thread(sandbox_of, request.param, workspaces.root)
    executor = LocalExecutor(
        workspaces, {"PATH": os.defpath}, kill_grace_s=0.2, cgroups=cgroups, **sandbox
    )
    runs = Runs(workspaces, executor)
    yield runs
    await runs.end_all()
    while await asyncio.to_thread(zombies):
        await executor.reap()
    if cgroups is not None:
        await asyncio.to_thread(cgroups.clear)
        await asyncio.to_thread(cgroups.close)
        assert not await asyncio.to_thread(Path(str(cgroups)).exists)


def sleeping(seconds: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cmdline() == ["sleep", seconds] and process.status() != "zombie":
                found.append(process)
    return found


async def test_trap_10_nameless_daemon_of_a_killed_script_is_ended(
    runs: Runs[LocalExecutor],
) -> None:
    other = await runs.start(
        f"env -i sleep {NUMBER}.1 & (env -i sleep {NUMBER}.1 &); sleep {NUMBER}.1\n"
    )
    await until(lambda: len(sleeping(f"{NUMBER}.1")) == 3)
    run = await runs.start(
        ESCAPE.replace("NUMBER", f"{NUMBER}.2") + f"touch up; sleep {NUMBER}.2\n"
    )
    await until_there(run.workspace.work / "up")
    await run.cancel()
    await run.over
    assert sleeping(f"{NUMBER}.2") == []
    # Processes of another payload that name no workspace, orphaned or not, are left alone.
    assert len(sleeping(f"{NUMBER}.1")) == 3
    await other.cancel()
    assert sleeping(f"{NUMBER}.1") == []


async def test_nameless_daemon_of_a_script_that_ended_by_itself_is_ended(
    runs: Runs[LocalExecutor],
) -> None:
    run = await runs.start(ESCAPE.replace("NUMBER", f"{NUMBER}.3") + "exit 4\n")
    assert (await run.outcome()).exit_code == 4
    assert sleeping(f"{NUMBER}.3") == []


async def test_child_of_this_process_that_no_script_started_is_left_alone(
    runs: Runs[LocalExecutor],
) -> None:
    other, failing = await asyncio.to_thread(
        lambda: [subprocess.Popen(["sleep", f"{NUMBER}.13"]), subprocess.Popen(["false"])]
    )
    try:
        await until(lambda: psutil.Process(failing.pid).status() == psutil.STATUS_ZOMBIE)
        run = await runs.start(ESCAPE.replace("NUMBER", f"{NUMBER}.14") + "exit 4\n")
        await run.over
        await runs.executor.reap()
        assert sleeping(f"{NUMBER}.14") == []
        assert other.poll() is None
        # The exit status is still there for the code that started the process.
        assert failing.wait() == 1
    finally:
        other.kill()
        other.wait()
        failing.wait()


async def test_terminated_script_has_its_grace_to_save_work(runs: Runs[LocalExecutor]) -> None:
    run = await runs.start(
        "trap 'echo saved > result; exit 3' TERM; touch up; while :; do sleep 0.01; done\n"
    )
    await until_there(run.workspace.work / "up")
    await run.cancel()
    outcome = await run.outcome()
    assert (outcome.exit_code, outcome.signal) == (3, None)
    assert (run.workspace.work / "result").read_text() == "saved\n"


async def test_stopped_script_is_ended(runs: Runs[LocalExecutor]) -> None:
    run = await runs.start(f"kill -STOP $$; sleep {NUMBER}.4\n")
    script = psutil.Process(run.pid)
    await until(
        lambda: any(
            process.status() == psutil.STATUS_STOPPED
            for process in (script, *script.children(recursive=True))
        )
    )
    await run.cancel()
    assert (await run.outcome()).signal == 15


async def test_script_that_starts_processes_without_end_is_ended(
    runs: Runs[LocalExecutor],
) -> None:
    run = await runs.start(f"trap '' TERM; touch up; while :; do (sleep {NUMBER}.5 &); done\n")
    await until_there(run.workspace.work / "up")
    await until(lambda: len(sleeping(f"{NUMBER}.5")) > 20)
    await run.cancel()
    assert sleeping(f"{NUMBER}.5") == []


async def test_trap_10_chain_of_processes_that_fork_and_end_is_ended(
    runs: Runs[LocalExecutor],
) -> None:
    # No member of the chain lives long enough to be found first and signalled then.
    link = "open F, '>>', 'beat'; print F 'x'; close F; select undef, undef, undef, 0.005"
    chain = f"$SIG{{TERM}} = 'IGNORE'; for (1 .. 2000) {{ exit if fork; {link} }}"
    run = await runs.start(
        f"cat > chain << 'END'\n{chain}\nEND\n(perl chain &)\nsleep {NUMBER}.12\n"
    )
    beat = run.workspace.work / "beat"
    await until_there(beat)
    reaper = Loop("reaper", runs.executor.reap, interval_s=0.05)
    reaper.start()
    await run.cancel()
    await reaper.stop()
    size = beat.stat().st_size
    await asyncio.sleep(0.1)
    assert beat.stat().st_size == size


def test_zombies_of_an_earlier_test_are_not_those_of_this_one() -> None:
    earlier = subprocess.Popen(["/bin/true"], start_new_session=True)
    os.waitid(os.P_PID, earlier.pid, os.WEXITED | os.WNOWAIT)
    assert [process.pid for process in zombies()] == [earlier.pid]
    exempt_from_zombies(adopted())
    own = subprocess.Popen(["/bin/true"], start_new_session=True)
    os.waitid(os.P_PID, own.pid, os.WEXITED | os.WNOWAIT)
    assert [process.pid for process in zombies()] == [own.pid]
    assert (earlier.wait(), own.wait()) == (0, 0)


# Not with a sandbox, which has an init process.
@pytest.mark.parametrize("runs", ["subreaper", "cgroup.kill", "freezer"], indirect=True)
async def test_trap_04_orphans_of_a_running_script_do_not_stay_zombies(
    runs: Runs[LocalExecutor],
) -> None:
    # They end after their parents, which otherwise would have reaped them.
    orphan = "(bash -c 'until [ -e up ]; do sleep 0.01; done' &)"
    run = await runs.start(f"for i in 1 2 3; do {orphan}; done; touch up; sleep {NUMBER}.6\n")
    await until_there(run.workspace.work / "up")
    await until(lambda: len(zombies()) >= 3)
    await runs.executor.reap()
    assert zombies() == []


async def test_orphan_that_ends_after_its_script_is_reaped_when_the_executor_closes(
    workspaces: Workspaces,
) -> None:
    executor = LocalExecutor(workspaces, {"PATH": os.defpath}, kill_grace_s=0.2)
    orphan = ["sh", "-c", "setsid true & exec true"]
    await asyncio.to_thread(subprocess.run, orphan, check=True)
    await until(lambda: len(zombies()) > 0)
    await executor.close()
    assert zombies() == []


async def test_trap_16_recover_ends_what_a_previous_process_left(
    runs: Runs[LocalExecutor], tmp_path: Path
) -> None:
    variable, path = processes.WORKSPACE_VARIABLE, {"PATH": "/usr/bin:/bin"}
    ours = {variable: str(runs.workspaces.root / "earlier"), **path}
    elsewhere = {variable: str(tmp_path / "elsewhere"), **path}
    left, foreign = await asyncio.to_thread(
        lambda: [
            subprocess.Popen(["sleep", seconds], env=env, start_new_session=True)
            for seconds, env in ((f"{NUMBER}.7", ours), (f"{NUMBER}.8", elsewhere))
        ]
    )
    # The kernel shows the environment only a moment after the start of the program.
    await until(lambda: variable in psutil.Process(left.pid).environ())
    try:
        assert await runs.executor.recover() == ()
        assert left.poll() is not None
        assert foreign.poll() is None
    finally:
        foreign.kill()
        foreign.wait()
        left.wait()


async def test_process_that_resists_is_reported(
    runs: Runs[LocalExecutor], monkeypatch: pytest.MonkeyPatch
) -> None:
    # No process can resist KILL here, so the time-out is over before the process can end.
    monkeypatch.setattr(supervisor, "KILL_TIMEOUT_S", -1.0)
    run = await runs.start(f"trap '' TERM; touch up; sleep {NUMBER}.9\n")
    await until_there(run.workspace.work / "up")
    with pytest.raises(StillRunning, match="Processes of run-0 could not be ended"):
        await run.cancel()
    monkeypatch.undo()
    await run.cancel()
    await run.over


def test_trap_15_process_that_has_only_the_same_pid_gets_no_signal() -> None:
    last_pid = Path("/proc/sys/kernel/ns_last_pid")
    with subprocess.Popen(["sleep", f"{NUMBER}.10"]) as first:
        remembered = psutil.Process(first.pid)
        first.kill()
    for _ in range(300):
        try:
            last_pid.write_text(str(first.pid - 1))
        except OSError:
            pytest.skip("only root can choose the next pid")
        with subprocess.Popen(["sleep", f"{NUMBER}.10"]) as second:
            try:
                if second.pid == first.pid:
                    processes.Termination(lambda: [remembered]).run_round(kill=True)
                    assert second.poll() is None
                    return
            finally:
                second.kill()
    pytest.skip("another process was always faster to take the pid")


def test_orphans_are_found_on_a_kernel_without_a_list_of_children(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with subprocess.Popen(["sleep", f"{NUMBER}.11"], start_new_session=True) as child:
        from_the_list = processes.possible_orphans()
        # Stands for a kernel without CONFIG_PROC_CHILDREN.
        monkeypatch.setattr(processes, "CHILDREN_OF_MAIN_THREAD", tmp_path / "none")
        assert processes.possible_orphans() == from_the_list
        assert child.pid in from_the_list
        child.kill()


async def test_search_for_orphans_waits_for_scripts_that_are_being_started() -> None:
    scripts = processes.ScriptPids()
    with scripts.starting() as record:
        searching = asyncio.create_task(asyncio.to_thread(scripts.all))
        assert not (await asyncio.wait({searching}, timeout=0.1))[0]
        record(4711)
    assert await searching == {4711}
    assert await asyncio.to_thread(scripts.all) == {4711}
