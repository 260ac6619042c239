"""Programs that start directly in their cgroups: what each way to start them promises."""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from job_orchestrator.client.errors import CgroupsUnavailable
from job_orchestrator.client.executors.local.cgroups.native_start import NativeStart
from job_orchestrator.client.executors.local.cgroups.payload_cgroups import (
    PayloadCgroups,
    open_cgroups,
)
from job_orchestrator.client.executors.local.child import CgroupStarter, Program
from job_orchestrator.client.executors.local.executor import LocalExecutor
from job_orchestrator.client.executors.local.fork_server.client import ForkServer
from job_orchestrator.client.executors.local.settings import ExecutionSettings
from job_orchestrator.client.workspace.layout import Workspaces
from mechanisms import NOBODY, cgroups_with
from payload_folders import Runs
from running_client import zombies

STARTERS: dict[str, Callable[[], CgroupStarter]] = {
    "native": NativeStart,
    "fork server": ForkServer,
}


def native_is_possible() -> bool:
    """Return whether the C library can start processes in a cgroup, as glibc can."""
    name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    return name == "glibc" and [int(number) for number in version.split(".")] >= [2, 39]


@pytest.fixture(params=STARTERS)
def cgroups(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[PayloadCgroups]:
    """Cgroups with each way to start programs there."""
    if request.param == "native" and not native_is_possible():
        pytest.skip("this C library can't start processes in a cgroup")
    with cgroups_with(STARTERS[request.param], tmp_path) as opened:
        yield opened


@pytest.fixture
def starter(cgroups: PayloadCgroups) -> CgroupStarter:
    assert cgroups.starter is not None
    return cgroups.starter


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


def start(starter: CgroupStarter, cgroup: Path, folder: Path, *command: str) -> tuple[int, str]:
    """Run a command; return its exit code and output."""
    output = folder / "output"
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        program = Program(command, folder, {"PATH": os.defpath}, descriptor, descriptor)
        child = starter.start(program, cgroup)
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


def test_program_that_cannot_be_executed_is_an_error(
    starter: CgroupStarter, cgroups: PayloadCgroups, tmp_path: Path
) -> None:
    cgroup = cgroups.create("payload")
    with pytest.raises(FileNotFoundError, match="no/such"):
        start(starter, cgroup.main.folder, tmp_path, "/no/such")
    assert not zombies()
    assert start(starter, cgroup.main.folder, tmp_path, "/bin/echo", "\udcff") == (
        0,
        "\udcff\n",
    )
    assert cgroup.remove()
    with pytest.raises(FileNotFoundError):
        start(starter, cgroup.main.folder, tmp_path, "/bin/true")


def test_long_arguments_arrive_complete(
    starter: CgroupStarter, cgroups: PayloadCgroups, tmp_path: Path
) -> None:
    cgroup = cgroups.create("payload")
    sizes = (100_000, 110_000, 120_000)
    arguments = ["x" * size for size in sizes]
    script = 'for each; do printf "%s " ${#each}; done'
    ended = start(starter, cgroup.main.folder, tmp_path, "/bin/sh", "-c", script, "sh", *arguments)
    assert ended == (0, "100000 110000 120000 ")
    assert cgroup.remove()


@pytest.mark.parametrize("of_other_users", [False, True])
def test_cgroups_use_the_native_start_except_for_other_users(
    tmp_path: Path, of_other_users: bool
) -> None:
    users = (NOBODY,) if of_other_users else ()
    cgroups = open_cgroups(ExecutionSettings(run_as=users), tmp_path)
    if cgroups is None or cgroups.starter is None:
        pytest.skip("processes can't be started directly in a cgroup here")
    native = native_is_possible() and not of_other_users
    assert isinstance(cgroups.starter, NativeStart if native else ForkServer)
    assert [path.name for path in Path(str(cgroups)).iterdir() if path.is_dir()] == []
    cgroups.close()
    assert not zombies()


@pytest.mark.skipif(native_is_possible(), reason="this C library has the native start")
def test_native_start_with_an_old_c_library_is_refused() -> None:
    with pytest.raises(CgroupsUnavailable, match=r"2\.39"):
        NativeStart()


@pytest.mark.skipif(not native_is_possible(), reason="this C library has no native start")
def test_native_start_resets_signals_that_the_client_ignores_or_blocks(tmp_path: Path) -> None:
    # In a process of its own: the settings of signals belong to a whole process.
    program = (
        "import os, signal, sys; from pathlib import Path\n"
        "from job_orchestrator.client.executors.local.cgroups.native_start import NativeStart\n"
        "from job_orchestrator.client.executors.local.child import Program\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\n"
        "command = ['/bin/grep', '-E', '^Sig(Blk|Ign)', '/proc/self/status']\n"
        "NativeStart().start(Program(command, Path('/'), {}, 1, 1), Path(sys.argv[1])).wait()\n"
    )
    with cgroups_with(NativeStart, tmp_path) as cgroups:
        cgroup = cgroups.create("payload")
        output = subprocess.run(
            [sys.executable, "-c", program, cgroup.main.folder],
            check=True,
            stdout=subprocess.PIPE,
            timeout=60,
        ).stdout
        cgroup.remove()
    masks = [int(mask, 16) & (1 << 31) - 1 for mask in re.findall(rb"\t(\w+)", output)]
    assert masks == [0, 0]


@pytest.mark.skipif(not native_is_possible(), reason="this C library has no native start")
def test_native_start_as_another_user_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="user"):
        NativeStart().start(Program(["/bin/true"], tmp_path, {}, 1, 1, NOBODY), tmp_path)
