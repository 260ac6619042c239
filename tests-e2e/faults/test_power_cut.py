"""Power cuts of the server's machine: nothing that users have seen is taken back."""

import asyncio
import contextlib
import json
import random
import signal
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import aiohttp
import pytest

from faults.disk import CanNotMount, Disk
from harness import FINAL, Portal, Service, StartClient, StartServer

USERS = 4
JOBS_OF_A_USER = 4


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """Mount a disk whose power can be cut; skip where that is not allowed."""
    disk = Disk(tmp_path / "disk.img", tmp_path / "disk")
    try:
        disk.make()
    except CanNotMount:
        pytest.skip("file systems can't be mounted here")
    yield disk
    disk.remove()


@dataclass
class Seen:
    """Answers and events about jobs that users have received."""

    log: Path
    tokens: dict[int, str] = field(default_factory=dict)
    ended: dict[int, str] = field(default_factory=dict)
    results: dict[int, bytes] = field(default_factory=dict)
    terminated: set[int] = field(default_factory=set)

    def runs(self, job: int) -> int:
        """Return how often the script of a job has begun."""
        text = self.log.read_text() if self.log.exists() else ""
        return text.split().count(self.tokens[job])


async def follow(server: Service, session: aiohttp.ClientSession, seen: Seen) -> None:
    """Note each end that the event stream announces."""
    timeout = aiohttp.ClientTimeout(total=None)
    async with session.get(f"{server.url}/events?user_id=1", timeout=timeout) as response:
        async for line in response.content:
            if line.startswith(b"data: "):
                job = json.loads(line[6:])
                if job["status"] in FINAL:
                    seen.ended[job["id"]] = job["status"]


async def use(portal: Portal, seen: Seen, user: int, chance: random.Random) -> None:
    """Submit jobs, terminate some, and fetch the results of the others."""
    jobs = []
    for _ in range(JOBS_OF_A_USER):
        token = uuid4().hex
        job = await portal.submit(
            f"echo {token} >> '{seen.log}'\nsleep {chance.uniform(0, 1):.2f}\n"
            "head -c 1000 /dev/urandom > noise\n",
            user=user,
        )
        seen.tokens[job] = token
        jobs.append(job)
    if user % 2:
        # The first one runs, the last one is queued or has just been sent.
        for job in (jobs[-1], jobs[0]):
            await asyncio.sleep(chance.uniform(0, 0.3))
            if (await portal.terminate(job))[0] == 200:
                seen.terminated.add(job)
                seen.ended[job] = "Killed"
    for job in jobs:
        seen.ended[job] = (await portal.end_of(job))["status"]
        if seen.ended[job] == "Completed":
            seen.results[job] = (await portal.results(job)).read("noise")


@contextlib.asynccontextmanager
async def in_use(
    server: Service, session: aiohttp.ClientSession, seen: Seen, chance: random.Random
) -> AsyncIterator[None]:
    """Let users use the server; they stop at the end of the block."""
    portal = Portal(server.url, session)
    tasks = [asyncio.create_task(follow(server, session, seen))]
    tasks += [
        asyncio.create_task(use(portal, seen, user, random.Random(chance.random())))  # noqa: S311
        for user in range(1, USERS + 1)
    ]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    for outcome in outcomes:
        assert outcome is None or isinstance(outcome, asyncio.CancelledError), outcome


async def check(portal: Portal, seen: Seen) -> None:
    """Compare what the server says with what was seen before the power cut."""
    assert seen.tokens, "nothing was accepted before the cut"
    runs = {job: seen.runs(job) for job in seen.ended}
    for job, status in seen.ended.items():
        assert (await portal.state(job))["status"] == status
    for job in seen.tokens:
        await portal.end_of(job)
    for job, content in seen.results.items():
        assert (await portal.results(job)).read("noise") == content
    for job, number in runs.items():
        assert (await portal.state(job))["status"] == seen.ended[job]
        assert seen.runs(job) == number, f"job {job} ran again, {job in seen.terminated=}"
    for job in seen.tokens:
        assert seen.runs(job) <= 1


@pytest.mark.parametrize(
    "seed", [1, 2, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(3, 6))]
)
async def test_trap_45_power_cut_takes_nothing_back(
    seed: int,
    disk: Disk,
    start_client: StartClient,
    start_server: StartServer,
    session: aiohttp.ClientSession,
    tmp_path: Path,
) -> None:
    chance = random.Random(seed)  # noqa: S311 (not for secrets)
    client = await start_client(SLOTS="4")
    server = await start_server(
        client, DATA_PATH=str(disk.folder / "data"), DB_PATH=str(disk.folder / "db.sqlite")
    )
    seen = Seen(tmp_path / "runs")
    async with in_use(server, session, seen, chance):
        await asyncio.sleep(chance.uniform(1.0, 4.0))
        # Stopped, so that it can't answer anything between the cut and its end.
        server.send_signal(signal.SIGSTOP)
        await asyncio.to_thread(disk.cut_power)
    await server.end(signal.SIGKILL)
    await asyncio.to_thread(disk.restore_power)
    await server.start()
    await check(Portal(server.url, session), seen)
