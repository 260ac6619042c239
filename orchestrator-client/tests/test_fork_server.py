"""Fork server: scripts that start directly in their cgroups."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest

from job_orchestrator.client.errors import MachineFault
from job_orchestrator.client.executors.local.cgroups.payload_cgroups import PayloadCgroups
from job_orchestrator.client.executors.local.child import Program
from job_orchestrator.client.executors.local.executor import LocalExecutor
from job_orchestrator.client.executors.local.fork_server.client import ForkServer
from job_orchestrator.client.workspace.layout import Workspaces
from mechanisms import NOBODY, cgroups_with
from payload_folders import Runs, until
from running_client import zombies


@pytest.fixture
def cgroups(tmp_path: Path) -> Iterator[PayloadCgroups]:
    """Cgroups in which a fork server starts processes."""
    with cgroups_with(ForkServer, tmp_path) as opened:
        yield opened


@pytest.fixture
def fork_server(cgroups: PayloadCgroups) -> ForkServer:
    """Fork server that runs."""
    server = cgroups.starter
    assert isinstance(server, ForkServer)
    cgroup = cgroups.create("first")
    assert server.start(Program(["/bin/true"], Path("/"), {}, 1, 2), cgroup.main.folder).wait() == 0
    assert cgroup.remove()
    assert server.pid > 0
    return server


@pytest.fixture
async def runs(
    workspaces: Workspaces, cgroups: PayloadCgroups
) -> AsyncIterator[Runs[LocalExecutor]]:
    executor = LocalExecutor(workspaces, {"PATH": os.defpath}, kill_grace_s=0.2, cgroups=cgroups)
    runs = Runs(workspaces, executor)
    yield runs
    await runs.end_all()


async def test_end_of_a_payload_does_not_end_the_fork_server(
    runs: Runs[LocalExecutor], fork_server: ForkServer
) -> None:
    before = fork_server.pid
    for _ in range(2):
        run = await runs.start("(sleep 4700 &); touch up; sleep 4700\n")
        await run.cancel()
        await run.over
        run = await runs.start("(setsid sleep 4700 &)\n")
        await run.over
    assert (fork_server.pid, psutil.pid_exists(before)) == (before, True)


async def test_next_script_starts_after_the_death_of_the_fork_server(
    runs: Runs[LocalExecutor], fork_server: ForkServer
) -> None:
    dead = fork_server.pid
    os.kill(dead, signal.SIGKILL)
    await until(lambda: psutil.Process(dead).status() == psutil.STATUS_ZOMBIE)
    run = await runs.start("exit 4\n")
    assert (await run.outcome()).exit_code == 4
    assert fork_server.pid != dead
    assert not psutil.pid_exists(dead)
    assert not await asyncio.to_thread(zombies)


async def test_death_of_the_fork_server_during_a_start_is_an_error_that_leaves_nothing(
    runs: Runs[LocalExecutor], cgroups: PayloadCgroups, fork_server: ForkServer
) -> None:
    # The stopped process has the request and does nothing, until it is killed.
    dead = fork_server.pid
    os.kill(dead, signal.SIGSTOP)
    starting = asyncio.create_task(runs.start("sleep 4700\n"))
    await until(lambda: bool(_names(cgroups)))
    os.kill(dead, signal.SIGKILL)
    with pytest.raises(MachineFault) as refused:
        await starting
    assert isinstance(refused.value.__cause__, ConnectionError)
    assert _names(cgroups) == []
    assert not psutil.pid_exists(dead)
    assert not await asyncio.to_thread(zombies)


async def test_run_that_is_polled_during_its_start_is_not_lost(
    runs: Runs[LocalExecutor], cgroups: PayloadCgroups, fork_server: ForkServer
) -> None:
    os.kill(fork_server.pid, signal.SIGSTOP)
    starting = asyncio.create_task(runs.start("exit 5\n"))
    await until(lambda: bool(_names(cgroups)))
    await runs.monitor.run_pass()
    os.kill(fork_server.pid, signal.SIGCONT)
    assert (await (await starting).outcome()).exit_code == 5


def test_script_that_was_given_up_does_not_start_when_the_fork_server_goes_on(
    cgroups: PayloadCgroups, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(
        "job_orchestrator.client.executors.local.fork_server.client.ANSWER_TIMEOUT_S", 3.0
    )
    server, cgroup, started = ForkServer(), cgroups.create("payload"), tmp_path / "started"
    assert server.start(Program(["/bin/true"], Path("/"), {}, 1, 2), cgroup.main.folder).wait() == 0
    stopped = psutil.Process(server.pid)
    stopped.suspend()

    def go_on() -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            stopped.resume()

    timer = threading.Timer(5.0, go_on)
    timer.start()
    with pytest.raises(TimeoutError):
        server.start(Program(["/bin/touch", str(started)], Path("/"), {}, 1, 2), cgroup.main.folder)
    timer.join()
    server.close()
    cgroup.main.kill()
    assert not stopped.is_running()
    assert not started.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts anything as another user")
def test_script_of_another_user_has_no_rights_of_this_user(
    fork_server: ForkServer, cgroups: PayloadCgroups, open_folder: Path
) -> None:
    cgroup = cgroups.create("payload")
    (open_folder / "output").touch()
    with (open_folder / "output").open("wb") as output:
        child = fork_server.start(
            Program(
                ["/bin/sh", "-c", "id -u; id -G; grep NoNewPrivs /proc/self/status"],
                open_folder,
                {"PATH": os.defpath},
                output.fileno(),
                output.fileno(),
                NOBODY,
            ),
            cgroup.main.folder,
        )
    assert child.wait() == 0
    output_words = (open_folder / "output").read_text().split()
    assert output_words == [str(NOBODY.uid), str(NOBODY.gid), "NoNewPrivs:", "1"]
    assert cgroup.remove()


def test_fork_server_ends_with_the_client(tmp_path: Path, cgroups: PayloadCgroups) -> None:
    program = (
        "import os, sys; from pathlib import Path\n"
        "from job_orchestrator.client.executors.local.child import Program\n"
        "from job_orchestrator.client.executors.local.fork_server.client import ForkServer\n"
        "server = ForkServer()\n"
        "server.start(Program(['/bin/true'], Path('/'), {}, 2, 2), Path(sys.argv[1])).wait()\n"
        "print(server.pid, flush=True); sys.stdin.read()\n"
    )
    cgroup = cgroups.create("payload")
    with subprocess.Popen(
        [sys.executable, "-c", program, cgroup.main.folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as owner:
        assert owner.stdout is not None
        server = psutil.Process(int(owner.stdout.readline()))
        # A service manager or a terminal sends these to all processes.
        server.send_signal(signal.SIGTERM)
        server.send_signal(signal.SIGINT)
        owner.kill()
        psutil.wait_procs([server], timeout=60)
        assert not server.is_running()
    assert cgroup.remove()


def _names(cgroups: PayloadCgroups) -> list[str]:
    return [path.name for path in Path(str(cgroups)).iterdir() if path.is_dir()]
