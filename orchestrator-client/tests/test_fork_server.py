"""Fork server: scripts that start directly in their cgroups."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest

from job_orchestrator.client.errors import MachineFault
from job_orchestrator.client.executors.local.cgroups.payload_cgroups import PayloadCgroups
from job_orchestrator.client.executors.local.executor import LocalExecutor
from job_orchestrator.client.executors.local.fork_server.client import ForkServer
from job_orchestrator.client.workspace.layout import Workspaces
from mechanisms import NOBODY, cgroups_of
from payload_folders import Runs, until
from running_client import zombies


@pytest.fixture
def cgroups(tmp_path: Path) -> Iterator[PayloadCgroups]:
    """Cgroups in which processes can be started directly."""
    opened = cgroups_of("cgroup.kill", tmp_path)
    assert opened is not None
    try:
        if opened.fork_server is None:
            # Only kernels before 5.7 cannot do it; on a later one it is a bug of the client.
            release = [int(number) for number in re.findall(r"\d+", os.uname().release)[:2]]
            assert release < [5, 7]
            pytest.skip("this kernel can't start processes directly in a cgroup")
        yield opened
        opened.clear()
    finally:
        opened.close()


@pytest.fixture
def fork_server(cgroups: PayloadCgroups) -> ForkServer:
    assert cgroups.fork_server is not None
    return cgroups.fork_server


@pytest.fixture
async def runs(
    workspaces: Workspaces, cgroups: PayloadCgroups
) -> AsyncIterator[Runs[LocalExecutor]]:
    executor = LocalExecutor(
        workspaces, {"PATH": os.defpath, "ASKED": "yes"}, kill_grace_s=0.2, cgroups=cgroups
    )
    runs = Runs(workspaces, executor)
    yield runs
    await runs.end_all()


def start(fork_server: ForkServer, cgroup: Path, folder: Path, *command: str) -> tuple[int, str]:
    """Run a command; return its exit code and output."""
    output = folder / "output"
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        child = fork_server.start(
            command,
            cgroup=cgroup,
            folder=folder,
            environment={"PATH": os.defpath},
            stdout=descriptor,
            stderr=descriptor,
            user=None,
        )
    finally:
        os.close(descriptor)
    return child.wait(), os.fsdecode(output.read_bytes())


async def test_script_that_starts_in_its_cgroup_has_the_same_surroundings_as_a_moved_one(
    runs: Runs[LocalExecutor], cgroups: PayloadCgroups
) -> None:
    run = await runs.start(
        "grep ^0: /proc/self/cgroup; echo $PWD $ASKED; cat; ps -o ppid=,sid=,pgid= -p $$; echo $$\n"
        "grep ^SigIgn /proc/self/status; echo bad >&2; exit 3\n"
    )
    assert (await run.outcome()).exit_code == 3
    output = await asyncio.to_thread(run.workspace.stdout.read_text)
    cgroup, folder, ids, pid, ignored = output.split("\n")[:5]
    assert cgroup.endswith(f"/{Path(str(cgroups)).name}/{run.run_id}")
    assert folder == f"{run.workspace.work} yes"
    assert ids.split() == [str(os.getpid()), pid, pid]
    # The signals above are those of the C library itself, which its posix_spawn leaves ignored.
    assert int(ignored.split()[1], 16) & (1 << 31) - 1 == 0
    assert await asyncio.to_thread(run.workspace.stderr.read_text) == "bad\n"


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


def test_program_that_cannot_be_executed_is_an_error(
    fork_server: ForkServer, cgroups: PayloadCgroups, tmp_path: Path
) -> None:
    cgroup = cgroups.create("payload")
    with pytest.raises(FileNotFoundError, match="no/such"):
        start(fork_server, cgroup.main.folder, tmp_path, "/no/such")
    assert not zombies()
    assert start(fork_server, cgroup.main.folder, tmp_path, "/bin/echo", "\udcff") == (
        0,
        "\udcff\n",
    )
    assert cgroup.remove()
    with pytest.raises(FileNotFoundError):
        start(fork_server, cgroup.main.folder, tmp_path, "/bin/true")


def test_request_larger_than_one_read_arrives_complete(
    fork_server: ForkServer, cgroups: PayloadCgroups, tmp_path: Path
) -> None:
    cgroup = cgroups.create("payload")
    sizes = (100_000, 110_000, 120_000)
    arguments = ["x" * size for size in sizes]
    script = 'for each; do printf "%s " ${#each}; done'
    ended = start(
        fork_server, cgroup.main.folder, tmp_path, "/bin/sh", "-c", script, "sh", *arguments
    )
    assert ended == (0, "100000 110000 120000 ")
    assert cgroup.remove()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts anything as another user")
def test_script_of_another_user_has_no_rights_of_this_user(
    fork_server: ForkServer, cgroups: PayloadCgroups, open_folder: Path
) -> None:
    cgroup = cgroups.create("payload")
    (open_folder / "output").touch()
    with (open_folder / "output").open("wb") as output:
        child = fork_server.start(
            ["/bin/sh", "-c", "id -u; id -G; grep NoNewPrivs /proc/self/status"],
            cgroup=cgroup.main.folder,
            folder=open_folder,
            environment={"PATH": os.defpath},
            stdout=output.fileno(),
            stderr=output.fileno(),
            user=NOBODY,
        )
    assert child.wait() == 0
    output_words = (open_folder / "output").read_text().split()
    assert output_words == [str(NOBODY.uid), str(NOBODY.gid), "NoNewPrivs:", "1"]
    assert cgroup.remove()


def test_fork_server_ends_with_the_client(tmp_path: Path, cgroups: PayloadCgroups) -> None:
    program = (
        "import os, sys; from pathlib import Path\n"
        "from job_orchestrator.client.executors.local.fork_server.client import ForkServer\n"
        "server = ForkServer()\n"
        "server.start(['/bin/true'], cgroup=Path(sys.argv[1]), folder=Path('/'), environment={},"
        " stdout=2, stderr=2, user=None).wait()\n"
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
