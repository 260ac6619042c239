"""Our server with a client of the original, and our client with a server of the original.

The control, both of the original, shows that a promise is one of the original.
"""

import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import psutil
import pytest

from harness import Portal, Service, StartClient, StartServer, eventually
from original_programs import TRAP, VARIABLE, OriginalService, binary

pytestmark = pytest.mark.skipif(
    binary() is None, reason=f"{VARIABLE} names no binary of the original"
)

OURS, ORIGINAL = "ours", "original"
PAIRS = {
    "our server, original client": (OURS, ORIGINAL),
    "original server, our client": (ORIGINAL, OURS),
    "control": (ORIGINAL, ORIGINAL),
}
StartOriginal = Callable[..., Awaitable[Service]]


@dataclass
class Installation:
    """A server and a client, and a portal that uses them."""

    server: Service
    client: Service
    portal: Portal
    folder: Path
    loses_jobs_with_client: bool
    """Our client keeps no payload over a restart, and the original runs no job again."""

    @property
    def waiting(self) -> str:
        """Lines of a script that wait until ``go`` is called."""
        return f"until [ -e {self.folder}/go ]; do sleep 0.1; done\n"

    def go(self) -> None:
        """Let the waiting scripts go on."""
        (self.folder / "go").touch()

    async def until_begun(self, job: int) -> None:
        """Wait until the script has written ``begun.txt``, and the server says that it runs."""
        await self.portal.until(job, "Running")

        async def has_begun() -> bool:
            names = (await self.portal.results(job, "download_partial")).namelist()
            return "begun.txt" in names

        await eventually(has_begun)


@pytest.fixture
async def start_original(tmp_path: Path) -> AsyncIterator[StartOriginal]:
    """Start a server or a client of the original, which is ended when the test ends."""
    running: list[Service] = []

    async def start(name: str, **settings: str) -> Service:
        folder = tmp_path / f"original-{name}"
        folder.mkdir()
        running.append(service := OriginalService(name, folder, settings))
        return await service.start()

    yield start
    for service in reversed(running):
        await service.end(signal.SIGKILL)


@pytest.fixture(params=PAIRS)
async def installation(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    start_original: StartOriginal,
    start_client: StartClient,
    start_server: StartServer,
    session: aiohttp.ClientSession,
) -> Installation:
    """A server with one client, one of them or both of the original."""
    servers, clients = PAIRS[request.param]
    client = await (start_client() if clients == OURS else start_original("client"))
    settings = {
        "SERVICE_EXAMPLE_MAX_RUNS": "5",
        "SERVICE_EXAMPLE_TERMINATE_URL": f"{client.url}/kill",
    }
    if servers == OURS:
        server = await start_server(client, **settings)
    else:
        settings["SERVICE_EXAMPLE_UPLOAD_URL"] = f"{client.url}/submit"
        settings["SERVICE_EXAMPLE_DOWNLOAD_URL"] = f"{client.url}/retrieve"
        server = await start_original("server", **settings)
    lost = (servers, clients) == (ORIGINAL, OURS)
    return Installation(server, client, Portal(server.url, session), tmp_path, lost)


async def test_files_arrive_and_the_results_come_back(installation: Installation) -> None:
    portal = installation.portal
    content = bytes(range(256)) * 4000
    jobs = [
        await portal.submit(
            f"{TRAP}cat data.bin > out.bin; echo {user} > user.txt\n",
            {"data.bin": content},
            user=user,
        )
        for user in range(1, 4)
    ]
    for user, job in enumerate(jobs, 1):
        await portal.until(job, "Completed")
        results = await portal.results(job)
        assert results.read("data.bin") == results.read("out.bin") == content
        assert results.read("user.txt") == b"%d\n" % user


async def test_large_file_arrives_although_the_original_sends_it_back(
    installation: Installation,
) -> None:
    portal = installation.portal
    content = bytes(range(256)) * 120_000
    script = f"{TRAP}wc -c < data.bin > size.txt; rm data.bin\n"
    job = await portal.submit(script, {"data.bin": content})
    await portal.until(job, "Completed")
    assert (await portal.results(job)).read("size.txt").strip() == b"%d" % len(content)


async def test_script_that_fails_is_a_failed_job(installation: Installation) -> None:
    portal = installation.portal
    job = await portal.submit(f"{TRAP}echo half > half.txt; exit 7\n")
    assert (await portal.end_of(job))["status"] == "Failed"
    assert (await portal.results(job, "download_partial")).read("half.txt") == b"half\n"


async def test_dangerous_script_is_invalid(installation: Installation) -> None:
    portal = installation.portal
    job = await portal.submit(f"{TRAP}sudo rm -rf /\n")
    assert (await portal.end_of(job))["status"] == "Invalid"


async def test_running_job_shows_its_output_and_is_terminated(installation: Installation) -> None:
    portal = installation.portal
    job = await portal.submit(f"{TRAP}echo $$ > begun.txt\n{installation.waiting}touch end.txt\n")
    await installation.until_begun(job)
    pid = int((await portal.results(job, "download_partial")).read("begun.txt"))
    os.kill(pid, 0)
    status, answer = await portal.terminate(job)
    assert (status, answer["id"], answer["message"]) == (200, job, "job terminated")
    assert (await portal.end_of(job))["status"] == "Killed"

    async def has_ended() -> bool:
        try:
            return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    await eventually(has_ended)


async def test_job_survives_a_crash_of_its_server(installation: Installation) -> None:
    portal, server = installation.portal, installation.server
    running = await portal.submit(f"{TRAP}touch begun.txt\n{installation.waiting}echo 1 > out\n")
    await installation.until_begun(running)
    await server.end(signal.SIGKILL)
    await server.start()
    installation.go()
    await portal.until(running, "Completed")
    assert (await portal.results(running)).read("out") == b"1\n"
    later = await portal.submit(f"{TRAP}echo 2 > out\n")
    assert later == running + 1
    await portal.until(later, "Completed")


async def test_jobs_end_after_a_crash_of_their_client(installation: Installation) -> None:
    portal, client = installation.portal, installation.client
    running = await portal.submit(f"{TRAP}touch begun.txt\n{installation.waiting}echo 1 > out\n")
    await installation.until_begun(running)
    await client.end(signal.SIGKILL)
    installation.go()
    await client.start()
    state = await portal.end_of(running)
    later = await portal.submit(f"{TRAP}echo 2 > out\n")
    await portal.until(later, "Completed")
    assert state["status"] == ("Failed" if installation.loses_jobs_with_client else "Completed")
