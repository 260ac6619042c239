"""Late binding: a job leaves the queue only for a free slot. With real processes."""

import asyncio
import signal
from pathlib import Path

import aiohttp

from harness import Portal, StartClient, StartServer, eventually

WAIT_FOR_FILE = """\
echo {name} >> {folder}/started
while [ ! -e {folder}/{name} ]; do sleep 0.05; done
"""


class Gates:
    """Scripts that record their start and run until they are released."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder

    def script(self, name: str) -> str:
        """Return a script that runs until ``release``."""
        return WAIT_FOR_FILE.format(folder=self._folder, name=name)

    def release(self, name: str) -> None:
        """End the script of this name."""
        (self._folder / name).touch()

    async def started(self, count: int) -> list[str]:
        """Wait until so many scripts have started; return all names in the order of the starts."""

        async def enough() -> bool:
            return len(self._names()) >= count

        await eventually(enough)
        return self._names()

    def _names(self) -> list[str]:
        path = self._folder / "started"
        return path.read_text().split() if path.exists() else []


async def test_trap_53_next_free_slot_goes_to_the_user_without_a_job(
    start_client: StartClient,
    start_server: StartServer,
    session: aiohttp.ClientSession,
    tmp_path: Path,
) -> None:
    gates = Gates(tmp_path / "gates")
    server = await start_server(await start_client(SLOTS="2"), SERVICE_EXAMPLE_RUNS_PER_USER="10")
    portal = Portal(server.url, session)
    for number in range(8):
        await portal.submit(gates.script(f"a{number}"), user=1)
    assert set(await gates.started(2)) == {"a0", "a1"}
    b = await portal.submit(gates.script("b"), user=2)
    gates.release("a0")
    assert (await gates.started(3))[2] == "b"
    for name in ("b", *(f"a{number}" for number in range(8))):
        gates.release(name)
    await portal.until(b, "Completed")


async def test_trap_51_job_waits_at_no_busy_client_while_another_one_is_idle(
    start_client: StartClient,
    start_server: StartServer,
    session: aiohttp.ClientSession,
    tmp_path: Path,
) -> None:
    gates = Gates(tmp_path / "gates")
    clients = [await start_client(SLOTS="1") for _ in range(2)]
    portal = Portal((await start_server(*clients)).url, session)
    await portal.submit(gates.script("long"), user=1)
    assert await gates.started(1) == ["long"]
    for number in range(6):
        await portal.submit(gates.script(str(number)), user=2 + number)
        gates.release(str(number))
    # The order is not promised: a short job may wait for a moment behind one that turns out long.
    assert sorted((await gates.started(7))[1:]) == [str(number) for number in range(6)]
    gates.release("long")


async def test_documented_quota_holds_on_any_machine_with_default_settings(
    start_client: StartClient,
    start_server: StartServer,
    session: aiohttp.ClientSession,
    tmp_path: Path,
) -> None:
    gates = Gates(tmp_path / "gates")
    portal = Portal((await start_server(await start_client(SLOTS=""))).url, session)
    jobs = [await portal.submit(gates.script(str(number))) for number in range(10)]
    await gates.started(5)
    for job in jobs[:5]:
        await portal.until(job, "Running")
    assert {(await portal.state(job))["status"] for job in jobs[5:]} == {"Queued"}
    for number in range(10):
        gates.release(str(number))
    for job in jobs:
        await portal.until(job, "Completed")


async def test_results_that_are_packed_hold_no_slot(
    start_client: StartClient, start_server: StartServer, session: aiohttp.ClientSession
) -> None:
    portal = Portal((await start_server(await start_client(SLOTS="1"))).url, session)
    # Holes are never read, and cost no disk: the files are many, so that packing takes long.
    packed = await portal.submit("mkdir d; cd d; seq 50000 | xargs touch\n", user=1)
    other = await portal.submit("exit 0\n", user=2)
    await portal.until(other, "Completed")
    assert (await portal.state(packed))["status"] == "Running"
    await portal.until(packed, "Completed")


async def test_job_of_a_client_that_dies_is_not_tried_there_before_it_is_back(
    start_client: StartClient, start_server: StartServer, session: aiohttp.ClientSession
) -> None:
    client = await start_client()
    portal = Portal((await start_server(client)).url, session)
    await portal.until(await portal.submit("exit 0\n"), "Completed")
    await client.end(signal.SIGKILL)
    job = await portal.submit("exit 0\n")
    await asyncio.sleep(0.5)  # several passes of the dispatcher
    await client.start()
    await portal.until(job, "Completed")
    async with session.get(f"{portal.url}/jobs/{job}") as response:
        assert (await response.json())["attempt"] <= 2
