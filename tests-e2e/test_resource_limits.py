"""Behaviour under a limit of processes, and memory use for large files."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import psutil
import pytest

from harness import Portal, StartClient, StartServer

PIDS = Path("/sys/fs/cgroup/pids")
LIMIT = 256
PAYLOADS = 1000

FILE_BYTES = 250 << 20
MEMORY_BYTES = 100 << 20
"""Limit for the growth of a service while it processes files of ``FILE_BYTES``."""


@pytest.fixture
def limited_group() -> Iterator[Path]:
    """A cgroup with a limit of ``LIMIT`` processes."""
    group = PIDS / f"few-{os.getpid()}"
    try:
        group.mkdir()
        (group / "pids.max").write_text(str(LIMIT))
    except OSError as error:
        pytest.skip(f"processes can't be limited here: {error}")
    yield group
    group.rmdir()


@pytest.mark.slow
async def test_trap_04_a_thousand_payloads_under_a_limit_of_256_processes_leave_no_zombie(
    start_client: StartClient, session: aiohttp.ClientSession, limited_group: Path
) -> None:
    client = await start_client(SLOTS="300")
    (limited_group / "cgroup.procs").write_text(str(client.pid))
    concurrent = asyncio.Semaphore(50)

    async def run() -> int:
        form = aiohttp.FormData()
        form.add_field("run.sh", b"(sleep 0.01 &)\nexit 0\n", filename="run.sh")
        async with concurrent, session.post(f"{client.url}/submit", data=form) as response:
            return int((await response.json())["id"])

    payloads = await asyncio.gather(*(run() for _ in range(PAYLOADS)))
    async with asyncio.timeout(150):
        for payload in payloads:
            while True:
                async with session.get(f"{client.url}/retrieve/{payload}") as response:
                    if response.content_type == "application/zip":
                        break
                    assert (await response.json())["status"] in ("Prepared", "Running")
                await asyncio.sleep(0.05)
    left = psutil.Process(client.pid).children(recursive=True)
    assert [child for child in left if child.status() == psutil.STATUS_ZOMBIE] == []
    await client.end()


class _MemoryGrowth:
    """Growth of the peak memory of a process since the creation of this object, in bytes."""

    def __init__(self, pid: int) -> None:
        self._status = Path(f"/proc/{pid}/status")
        self._begin = self._read("VmRSS")

    def bytes(self) -> int:
        return self._read("VmHWM") - self._begin

    def _read(self, name: str) -> int:
        for line in self._status.read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
        raise LookupError(name)


async def test_trap_29_memory_of_both_services_stays_flat_for_large_files(
    start_client: StartClient,
    start_server: StartServer,
    session: aiohttp.ClientSession,
    tmp_path: Path,
) -> None:
    client = await start_client()
    server = await start_server(client)
    portal = Portal(server.url, session)
    await portal.until(await portal.submit("exit 0\n"), "Completed")
    growths = [_MemoryGrowth(service.pid) for service in (server, client)]
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(FILE_BYTES)
    form = aiohttp.FormData({"user_id": "1", "service": "example"})
    form.add_field("file", b"exit 0\n", filename="run.sh")
    form.add_field("file", big.open("rb"), filename="big")
    async with session.post(f"{server.url}/upload", data=form) as response:
        job = (await response.json())["id"]
    await portal.until(job, "Completed")
    size = 0
    async with session.get(f"{server.url}/download/{job}") as response:
        async for block in response.content.iter_any():
            size += len(block)
    assert size > 100_000
    assert [each.bytes() for each in growths if each.bytes() > MEMORY_BYTES] == []
