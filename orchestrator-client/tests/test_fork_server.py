"""Scripts that are born in their cgroups."""

import asyncio
import fcntl
import os
import re
import signal
import subprocess
import sys
import termios
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest

from job_orchestrator.client.executors.local.cgroups.manager import Cgroups
from job_orchestrator.client.executors.local.executor import LocalExecutor
from job_orchestrator.client.executors.local.fork_server.client import ForkServer
from job_orchestrator.client.workspace.layout import Workspaces
from mechanisms import NOBODY, cgroups_of
from payload_folders import Runs, until
from running_client import zombies


@pytest.fixture
def cgroups(tmp_path: Path) -> Iterator[Cgroups]:
    """Groups whose processes are born in them."""
    opened = cgroups_of("cgroup.kill", tmp_path)
    assert opened is not None
    try:
        if opened.fork_server is None:
            # Else it is a fault of ours, which must not pass for one of the machine.
            release = [int(number) for number in re.findall(r"\d+", os.uname().release)[:2]]
            assert release < [5, 7]
            pytest.skip("this kernel can't be used here to start anything in a cgroup")
        yield opened
        opened.clear()
    finally:
        opened.close()


@pytest.fixture
def fork_server(cgroups: Cgroups) -> ForkServer:
    assert cgroups.fork_server is not None
    return cgroups.fork_server


@pytest.fixture
async def runs(workspaces: Workspaces, cgroups: Cgroups) -> AsyncIterator[Runs]:
    executor = LocalExecutor(
        workspaces.root, {"PATH": os.defpath, "ASKED": "yes"}, kill_grace_s=0.2, cgroups=cgroups
    )
    runs = Runs(workspaces, executor)
    yield runs
    await runs.end_all()


def start(fork_server: ForkServer, group: Path, folder: Path, *command: str) -> tuple[int, str]:
    """Exit code and output of a command."""
    output = folder / "output"
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        child = fork_server.start(
            command,
            group=group,
            folder=folder,
            environment={"PATH": os.defpath},
            stdout=descriptor,
            stderr=descriptor,
            user=None,
        )
    finally:
        os.close(descriptor)
    return child.wait(), os.fsdecode(output.read_bytes())


async def test_script_is_born_in_its_group_as_if_it_were_moved(
    runs: Runs, cgroups: Cgroups
) -> None:
    workspace, _, ended = await runs.start(
        "grep ^0: /proc/self/cgroup; echo $PWD $ASKED; cat; ps -o ppid=,sid=,pgid= -p $$; echo $$\n"
        "grep ^SigIgn /proc/self/status; echo bad >&2; exit 3\n"
    )
    assert (await ended).exit_code == 3
    group, place, ids, pid, ignored = (await asyncio.to_thread(workspace.stdout.read_text)).split(
        "\n"
    )[:5]
    assert group.endswith(f"/{Path(str(cgroups)).name}/{workspace.root.name}")
    assert place == f"{workspace.work} yes"
    assert ids.split() == [str(os.getpid()), pid, pid]
    # Those above are the C library's own; its posix_spawn leaves them so, for ever.
    assert int(ignored.split()[1], 16) & (1 << 31) - 1 == 0
    assert await asyncio.to_thread(workspace.stderr.read_text) == "bad\n"


async def test_end_of_a_payload_leaves_what_starts_them(
    runs: Runs, fork_server: ForkServer
) -> None:
    before = fork_server.pid
    for _ in range(2):
        _, execution, ended = await runs.start("(sleep 4700 &); touch up; sleep 4700\n")
        await execution.terminate()
        await ended
        _, _, ended = await runs.start("(setsid sleep 4700 &)\n")
        await ended
    assert (fork_server.pid, psutil.pid_exists(before)) == (before, True)


async def test_after_its_death_the_next_script_starts(runs: Runs, fork_server: ForkServer) -> None:
    dead = fork_server.pid
    os.kill(dead, signal.SIGKILL)
    await until(lambda: psutil.Process(dead).status() == psutil.STATUS_ZOMBIE)
    _, _, ended = await runs.start("exit 4\n")
    assert (await ended).exit_code == 4
    assert fork_server.pid != dead
    assert not psutil.pid_exists(dead)
    assert not await asyncio.to_thread(zombies)


async def test_death_while_it_starts_a_script_is_an_error_that_leaves_nothing(
    runs: Runs, cgroups: Cgroups, fork_server: ForkServer
) -> None:
    # Stopped, it has the request and does nothing; continued, it dies of a signal that waited.
    dead = fork_server.pid
    os.kill(dead, signal.SIGSTOP)
    starting = asyncio.create_task(runs.start("sleep 4700\n"))
    await until(lambda: bool(_groups(cgroups)))
    os.kill(dead, signal.SIGKILL)
    with pytest.raises(ConnectionError):
        await starting
    assert _groups(cgroups) == []
    assert not psutil.pid_exists(dead)
    assert not await asyncio.to_thread(zombies)


def test_program_that_can_not_be_executed_is_an_error(
    fork_server: ForkServer, cgroups: Cgroups, tmp_path: Path
) -> None:
    group = cgroups.make("payload")
    with pytest.raises(FileNotFoundError, match="no/such"):
        start(fork_server, group.main.folder, tmp_path, "/no/such")
    assert not zombies()
    assert start(fork_server, group.main.folder, tmp_path, "/bin/echo", "\udcff") == (0, "\udcff\n")
    assert group.remove()
    with pytest.raises(FileNotFoundError):
        start(fork_server, group.main.folder, tmp_path, "/bin/true")


def test_request_larger_than_what_is_read_at_once_arrives_whole(
    fork_server: ForkServer, cgroups: Cgroups, tmp_path: Path
) -> None:
    group = cgroups.make("payload")
    sizes = (100_000, 110_000, 120_000)
    arguments = ["x" * size for size in sizes]
    script = 'for each; do printf "%s " ${#each}; done'
    ended = start(
        fork_server, group.main.folder, tmp_path, "/bin/sh", "-c", script, "sh", *arguments
    )
    assert ended == (0, "100000 110000 120000 ")
    assert group.remove()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts anything as another user")
def test_script_of_another_user_has_no_rights_of_this_one(
    fork_server: ForkServer, cgroups: Cgroups, open_folder: Path
) -> None:
    group = cgroups.make("payload")
    (open_folder / "output").touch()
    with (open_folder / "output").open("wb") as output:
        child = fork_server.start(
            ["/bin/sh", "-c", "id -u; id -G; grep NoNewPrivs /proc/self/status"],
            group=group.main.folder,
            folder=open_folder,
            environment={"PATH": os.defpath},
            stdout=output.fileno(),
            stderr=output.fileno(),
            user=NOBODY,
        )
    assert child.wait() == 0
    told = (open_folder / "output").read_text().split()
    assert told == [str(NOBODY.uid), str(NOBODY.gid), "NoNewPrivs:", "1"]
    assert group.remove()


def test_ends_with_the_process_that_it_belongs_to(tmp_path: Path, cgroups: Cgroups) -> None:
    program = (
        "import os, sys; from pathlib import Path\n"
        "from job_orchestrator.client.executors.local.fork_server.client import ForkServer\n"
        "server = ForkServer()\n"
        "server.start(['/bin/true'], group=Path(sys.argv[1]), folder=Path('/'), environment={},"
        " stdout=2, stderr=2, user=None).wait()\n"
        "print(server.pid, flush=True); sys.stdin.read()\n"
    )
    group = cgroups.make("payload")
    with subprocess.Popen(
        [sys.executable, "-c", program, group.main.folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as owner:
        assert owner.stdout is not None
        server = psutil.Process(int(owner.stdout.readline()))
        server.send_signal(signal.SIGTERM)  # as a service manager sends it to all at once
        server.send_signal(signal.SIGINT)
        owner.kill()
        psutil.wait_procs([server], timeout=20)
        assert not server.is_running()
    assert group.remove()


def _unread(fork_server: ForkServer) -> int:
    """Bytes that were sent to it and that it has not read."""
    assert fork_server._channel is not None
    told = fcntl.ioctl(fork_server._channel, termios.TIOCOUTQ, b"\0" * 4)
    return int.from_bytes(told, sys.byteorder)


def _groups(cgroups: Cgroups) -> list[str]:
    return [path.name for path in Path(str(cgroups)).iterdir() if path.is_dir()]
