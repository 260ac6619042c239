"""Faults of the machine: payloads are given back, and none accepted until a test script runs."""

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from job_orchestrator.client.errors import MachineFault
from job_orchestrator.client.payloads.fitness import Fitness
from job_orchestrator.common.protocol.sse import Event
from job_orchestrator.common.runtime.backoff import Backoff
from running_client import Client, StartClient


async def health(client: Client) -> tuple[int, str]:
    async with client.http.get("/health") as response:
        answer = await response.json()
        return response.status, answer.get("message", "")


async def until_healthy(client: Client) -> None:
    async with asyncio.timeout(60):
        while (await health(client))[0] != 200:  # noqa: ASYNC110 (there is no event)
            await asyncio.sleep(0.05)


async def next_of(events: AsyncIterator[Event], kind: str, **wanted: Any) -> dict[str, Any]:
    """Return the next event with these values."""
    async for event in events:
        data = dict(json.loads(event.data))
        if event.kind == kind and wanted.items() <= data.items():
            return data
    raise AssertionError("the event stream ended")


@pytest.fixture
def bash(tmp_path: Path) -> Path:
    """The only bash in the PATH of scripts, as a link that a test can remove."""
    link = tmp_path / "bin" / "bash"
    link.parent.mkdir()
    link.symlink_to(shutil.which("bash") or "")
    return link


async def test_trap_50_payload_that_the_machine_could_not_start_is_given_back(
    start_client: StartClient, bash: Path
) -> None:
    client = await start_client(PATH=str(bash.parent))
    await asyncio.to_thread(bash.unlink)
    async with asyncio.timeout(60), client.events() as events:
        payload = await client.submit("exit 0\n")
        # The fault comes first, so that the server sends the job elsewhere.
        load = await next_of(events, "load", draining=True)
        assert (
            load["problem"]
            == "run.sh can't be started: [Errno 2] No such file or directory: 'bash'"
        )
        given_back = await next_of(events, "payload", id=payload, status="Cleaned")
        assert given_back["message"] == load["problem"]
        for _ in range(2):  # also if the first answer was lost
            async with client.http.get(f"/retrieve/{payload}") as response:
                assert (response.status, (await response.json())["code"]) == (404, "given-back")
        assert await health(client) == (500, f"This machine can't run payloads: {load['problem']}")
        status, refused = await client.post("exit 0\n")
        assert (status, load["problem"] in refused["message"]) == (503, True)
        await asyncio.to_thread(bash.symlink_to, shutil.which("bash", path=os.defpath) or "")
        await next_of(events, "load", draining=False, problem="")
    assert (await client.run("exit 0\n"))["status"] == "Completed"
    assert await asyncio.to_thread(lambda: list(client.data.glob("probe*"))) == []


async def test_late_repeat_of_a_submit_does_not_run_a_payload_that_was_given_back(
    start_client: StartClient, bash: Path
) -> None:
    client = await start_client(PATH=str(bash.parent))
    await asyncio.to_thread(bash.unlink)
    async with asyncio.timeout(60), client.events() as events:
        payload = await client.submit("exit 0\n", key="a.1.nonce")
        await next_of(events, "payload", id=payload, status="Cleaned")
        # Its job may run elsewhere by now. The answer is the same while there is a fault.
        status, refused = await client.post("exit 0\n", key="a.1.nonce")
        assert (status, refused["code"]) == (404, "given-back")
        await asyncio.to_thread(bash.symlink_to, shutil.which("bash", path=os.defpath) or "")
        await next_of(events, "load", draining=False, problem="")
    status, refused = await client.post("exit 0\n", key="a.1.nonce")
    assert (status, refused["code"]) == (404, "given-back")
    assert (await client.run("exit 0\n"))["status"] == "Completed"


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """Data folder on a file system with few inodes."""
    folder = tmp_path / "data"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m,nr_inodes=200", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False).returncode != 0:
        pytest.skip("a file system can't be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


async def test_folder_that_can_not_be_removed_does_not_change_why_a_submit_is_refused(
    start_client: StartClient, tiny_disk: Path
) -> None:
    client = await start_client()
    mounted: list[Path] = []

    async def form() -> AsyncIterator[bytes]:
        head = "Content-Disposition: form-data; name=file; filename="
        yield f'--b\r\n{head}"sub/input"\r\n\r\n'.encode() + b"x" * (2 << 20) + b"\r\n"
        async with asyncio.timeout(60):
            while not (found := await asyncio.to_thread(_folders_named_sub, client)):
                yield b""
                await asyncio.sleep(0.05)
        mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(found[0])]
        await asyncio.to_thread(subprocess.run, mount, check=True)
        mounted.extend(found)
        yield b"--b--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    async with client.http.post("/submit", data=form(), headers=headers) as response:
        assert (response.status, (await response.json())["message"]) == (400, "Missing run.sh")
    subprocess.run(["umount", *mounted], check=True)  # noqa: ASYNC221 (the test is over)


def _folders_named_sub(client: Client) -> list[Path]:
    return list(client.data.glob("*/work/sub"))


def use_up_inodes(folder: Path) -> None:
    with contextlib.suppress(OSError):
        for number in range(1000):
            (folder / f"filler{number}").touch()


def free_inodes(folder: Path) -> None:
    for filler in folder.glob("filler*"):
        filler.unlink()


async def test_trap_50_disk_without_inodes_costs_no_payload_its_end(
    start_client: StartClient, tiny_disk: Path
) -> None:
    client = await start_client(SLOTS="1")
    gate = tiny_disk / "gate"
    # Larger than results that are packed in memory.
    script = (
        "echo run >> runs; head -c 300000 /dev/urandom > big; touch up\n"
        f"until [ -e {gate} ]; do sleep 0.05; done\n"
    )
    async with asyncio.timeout(90), client.events() as events:
        runs = await client.submit(script)
        await client.eventually(lambda: any(client.data.glob("*/work/up")))
        waits = await client.submit("exit 0\n")
        gate_made_of = tiny_disk / "filler-gate"
        await asyncio.to_thread(gate_made_of.touch)
        await asyncio.to_thread(use_up_inodes, tiny_disk)
        await asyncio.to_thread(gate_made_of.rename, gate)
        # One waits for a slot, the other one has ended well and can't be packed.
        given_back = await next_of(events, "payload", id=waits, status="Cleaned")
        assert "disk is full" in given_back["message"] or "No space left" in given_back["message"]
        assert (await health(client))[0] == 500
        assert (await client.get(runs))["status"] == "Running"
        await asyncio.to_thread(free_inodes, tiny_disk)
        ended = await next_of(events, "payload", id=runs, status="Completed")
        assert ended["exit_code"] == 0
    assert (await client.archive(runs, "retrieve")).read("runs") == b"run\n"
    await until_healthy(client)
    assert (await client.run("exit 0\n"))["status"] == "Completed"


class Machine:
    """A machine whose fault a test sets."""

    def __init__(self) -> None:
        self.fault = ""
        self.tests = 0
        self.announced: list[str] = []

    async def self_test(self) -> None:
        self.tests += 1
        if self.fault:
            raise MachineFault(self.fault)

    async def announce(self, problem: str) -> None:
        self.announced.append(problem)


async def test_self_tests_go_on_until_one_succeeds_and_each_change_is_announced() -> None:
    machine = Machine()
    fitness = Fitness(machine.self_test, machine.announce, Backoff((0.0,)))
    await fitness.run_pass()
    assert machine.tests == 0
    machine.fault = "no disk"
    await fitness.report("no start")
    await fitness.report("no start either")
    assert fitness.problem == "no start"
    await fitness.run_pass()
    await fitness.run_pass()
    assert (fitness.problem, machine.tests) == ("no disk", 2)
    machine.fault = ""
    await fitness.run_pass()
    assert machine.announced == ["no start", "no disk", ""]


async def test_self_test_waits_longer_after_each_failure_in_a_row() -> None:
    machine = Machine()
    fitness = Fitness(machine.self_test, machine.announce, Backoff((0.0, 3600.0)))
    await fitness.report("no start")
    await fitness.run_pass()
    assert fitness.problem == ""
    await fitness.report("no start")
    await fitness.run_pass()
    assert (fitness.problem, machine.tests) == ("no start", 1)


async def test_payload_whose_files_were_removed_is_no_fault_of_the_machine(
    start_client: StartClient,
) -> None:
    client = await start_client(SLOTS="1")
    first = await client.submit("until [ -e go ]; do sleep 0.05; done; rm -r ../../$(cat go)\n")
    await client.eventually(lambda: any(client.data.glob("*/stdout.txt")))
    second = await client.submit("exit 0\n")
    loc = Path((await client.get(second))["loc"])
    (work,) = [path.parent / "work" for path in client.data.glob("*/stdout.txt")]
    (work / "go.tmp").write_text(loc.name)
    (work / "go.tmp").rename(work / "go")
    await client.until(first, "Completed")
    await client.until(second, "Failed")
    assert "were removed before its start" in (await client.get(second))["message"]
    assert (await health(client))[0] == 200
