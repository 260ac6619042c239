"""Cgroups: leftovers of a previous process, limits and their messages, machines without them."""

import asyncio
import subprocess
from pathlib import Path

import pytest

from job_orchestrator.client.errors import CgroupsUnavailable
from job_orchestrator.client.executors.local.cgroups.cgroup import Cgroup
from job_orchestrator.client.executors.local.cgroups.hierarchy import (
    Hierarchy,
    delegate,
    visible_hierarchies,
)
from job_orchestrator.client.executors.local.cgroups.limits import limit_reached, set_limits
from job_orchestrator.client.executors.local.cgroups.payload_cgroups import open_cgroups
from job_orchestrator.client.executors.local.settings import ExecutionSettings
from job_orchestrator.client.model import Limits
from job_orchestrator.common.errors import StartupError
from mechanisms import cgroups_of
from running_client import StartClient


@pytest.fixture
def controlled(tmp_path: Path) -> None:
    """Skip the test where limits cannot be set."""
    try:
        cgroups = open_cgroups(
            ExecutionSettings(memory_limit_bytes=10**9, pids_limit=1000, cpu_limit=1.0), tmp_path
        )
    except StartupError as error:
        pytest.skip(str(error))
    assert cgroups is not None
    cgroups.close()


@pytest.mark.parametrize("mechanism", ["cgroup.kill", "freezer"])
def test_trap_16_processes_that_a_previous_start_left_in_its_cgroups_are_killed(
    tmp_path: Path, mechanism: str
) -> None:
    previous = cgroups_of(mechanism, tmp_path)
    assert previous is not None
    cgroup = previous.create("payload")
    with subprocess.Popen(["sleep", "4731"], env={}) as left:
        cgroup.add(left.pid)
        if previous.starter is not None:  # a fork server ends with its client
            previous.starter.close()
        current = cgroups_of(mechanism, tmp_path)
        assert left.wait(10) == -9
    assert current is not None
    current.close()
    assert not cgroup.main.folder.parent.exists()


@pytest.mark.parametrize("mechanism", ["cgroup.kill", "freezer"])
def test_cgroup_is_removed_with_the_cgroups_that_a_script_created_below_it(
    tmp_path: Path, mechanism: str
) -> None:
    cgroups = cgroups_of(mechanism, tmp_path)
    assert cgroups is not None
    cgroup = cgroups.create("payload")
    below = cgroup.main.folder / "below"
    below.mkdir()
    with subprocess.Popen(["sleep", "4732"]) as process:
        Cgroup(below, cgroup.main.version).add(process.pid)
        assert cgroup.main.pids() == [process.pid]
        assert not cgroup.remove()
        cgroup.main.kill()
        assert process.wait(10) == -9
    assert cgroup.remove()
    cgroups.close()


async def test_memory_limit_that_was_reached_is_reported(
    controlled: None, start_client: StartClient
) -> None:
    client = await start_client(MEMORY_LIMIT="64MB")
    payload = await client.run("head -c 300M /dev/zero | tail > out; exit ${PIPESTATUS[1]}\n")
    assert (
        payload["message"] == "The memory limit of 64 MB was reached; run.sh exited with code 137"
    )
    assert (payload["status"], payload["exit_code"]) == ("Failed", 137)
    # The limit is that of one payload: the next one has its full memory.
    assert (await client.run("exit 0\n"))["status"] == "Completed"


async def test_fork_bomb_reaches_its_limit_and_is_ended(
    controlled: None, start_client: StartClient
) -> None:
    client = await start_client(PIDS_LIMIT="40")
    # Not the classic fork bomb, which the check of scripts refuses.
    script = "trap '' TERM; while :; do sleep 1031 & done\n"
    payload = await client.run(script, time_limit="0.5")
    assert payload["message"] == "Time limit of 0.5 s reached"
    assert await asyncio.to_thread(client.processes) == []
    bomb = b"for (1 .. 60) { $p = fork; exit 3 unless defined $p; sleep 1032 unless $p }"
    failed = await client.run("perl bomb\n", bomb=bomb)
    assert failed["message"] == "The limit of 40 processes was reached; run.sh exited with code 3"


async def test_cpu_limit_slows_a_payload_down(controlled: None, start_client: StartClient) -> None:
    client = await start_client(CPU_LIMIT="0.1")
    payload = await client.run("for ((i = 0; i < 100000; i++)); do :; done; times; exit 0\n")
    archive = await client.archive(payload["id"])
    record = archive.read(".orchestrator/result.json").decode()
    used, _, rest = archive.read(".orchestrator/stdout.txt").decode().partition(" ")
    assert payload["status"] == "Completed"
    seconds = float(used.partition("m")[2].rstrip("s")) + float(
        rest.split("\n")[0].partition("m")[2].rstrip("s")
    )
    begun, ended = (float(line.split(": ")[1].rstrip(",")) for line in record.splitlines()[3:5])
    assert ended - begun > 3 * seconds


def test_limit_that_cannot_be_set_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="A limit is set, but payloads cannot have"):
        open_cgroups(ExecutionSettings(memory_limit_bytes=10**9), tmp_path, [])
    with pytest.raises(StartupError, match=r"CGROUPS is 'required', but .* no freezer"):
        open_cgroups(ExecutionSettings(cgroups="required"), tmp_path, [])
    with pytest.raises(StartupError, match="CGROUPS is off"):
        open_cgroups(ExecutionSettings(cgroups="off", pids_limit=5), tmp_path)


def test_open_cgroups_without_a_writable_hierarchy_returns_none(tmp_path: Path) -> None:
    (tmp_path / "own").touch()
    hierarchy = Hierarchy(tmp_path, tmp_path / "own", 2, frozenset())
    assert open_cgroups(ExecutionSettings(), tmp_path, [hierarchy]) is None
    assert open_cgroups(ExecutionSettings(cgroups="off"), tmp_path) is None


PURE = (
    "0::/system.slice/jo-client.service\n",
    "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
    "31 23 0:27 / /proc rw - proc proc rw\n",
)
HYBRID = (
    "5:memory:/a/b\n4:cpu,cpuacct:/\n1:name=systemd:/\n0::/x\n",
    "1 0 0:1 /a /cg/mem rw - cgroup cgroup rw,memory\n"
    "2 0 0:2 / /cg/cpu\\040s rw shared:1 - cgroup cgroup rw,cpu,cpuacct\n"
    "3 0 0:3 / /cg/unified rw - cgroup2 none rw\n"
    "4 0 0:4 /.. /cg/elsewhere rw - cgroup cgroup rw,pids\n",
)


@pytest.mark.parametrize(
    ("proc", "expected"),
    [
        (PURE, {(2, "/sys/fs/cgroup/system.slice/jo-client.service", "")}),
        (
            HYBRID,
            {(1, "/cg/mem/b", "memory"), (1, "/cg/cpu s", "cpu,cpuacct"), (2, "/cg/unified/x", "")},
        ),
        (("0::/../outside\n", PURE[1]), set()),
        (("", ""), set()),
    ],
)
def test_hierarchies_are_read_from_proc(
    tmp_path: Path, proc: tuple[str, str], expected: set[tuple[int, str, str]]
) -> None:
    (tmp_path / "cgroup").write_text(proc[0])
    (tmp_path / "mountinfo").write_text(proc[1])
    found = {
        (t.version, str(t.own), ",".join(sorted(t.controllers)))
        for t in visible_hierarchies(tmp_path)
    }
    assert found == expected


def test_limits_of_version_2_are_written_as_its_kernel_reads_them(tmp_path: Path) -> None:
    (tmp_path / "memory.swap.max").touch()
    limits = Limits(memory_bytes=2 * 10**9, pids=64, cpus=1.5)
    set_limits(tmp_path, 2, limits, frozenset({"memory", "pids", "cpu"}))
    written = {file.name: file.read_text() for file in tmp_path.iterdir()}
    assert written == {
        "memory.max": "2000000000",
        "memory.swap.max": "0",
        "pids.max": "64",
        "cpu.max": "150000 100000",
    }
    (tmp_path / "memory.events").write_text("low 0\nmax 12\noom 1\noom_kill 1\n")
    assert limit_reached(tmp_path, limits) == "The memory limit of 2 GB was reached"
    (tmp_path / "memory.events").write_text("oom_kill 0\n")
    assert limit_reached(tmp_path, limits) == ""


def test_delegate_enables_controllers_that_the_hierarchy_has(tmp_path: Path) -> None:
    own, parent = tmp_path, tmp_path / "payloads"
    parent.mkdir()
    (own / "cgroup.subtree_control").write_text("cpu memory pids")
    delegate(Hierarchy(own, own, 2, frozenset({"memory", "pids"})), parent, {"memory", "pids"})
    assert (parent / "cgroup.subtree_control").read_text() == "+memory +pids"
    with pytest.raises(CgroupsUnavailable, match="has no cpu controller"):
        delegate(Hierarchy(own, own, 2, frozenset({"memory"})), parent, {"memory", "cpu"})
