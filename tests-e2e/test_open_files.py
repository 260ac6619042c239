"""A service at its limit of open files."""

import asyncio
import resource

import aiohttp
import psutil
import pytest

from harness import Service, StartClient, StartServer, eventually

LIMIT = 64
EXHAUSTED = "No connection can be accepted: Too many open files"


@pytest.mark.parametrize("name", ["jo-server", "jo-client"])
async def test_service_without_free_descriptors_logs_it_once_and_recovers(
    start_client: StartClient,
    start_server: StartServer,
    session: aiohttp.ClientSession,
    name: str,
) -> None:
    service: Service
    if name == "jo-client":
        service = await start_client()
    else:
        service = await start_server("http://127.0.0.1:9")
    process = psutil.Process(service.pid)
    limit = await asyncio.to_thread(process.num_fds) + LIMIT
    resource.prlimit(service.pid, resource.RLIMIT_NOFILE, (limit, limit))
    host, port = service.url.removeprefix("http://").split(":")
    idle = [await asyncio.open_connection(host, int(port)) for _ in range(LIMIT + 40)]

    async def exhausted() -> bool:
        return EXHAUSTED in service.logged

    await eventually(exhausted)
    before = sum(process.cpu_times()[:2])
    await asyncio.sleep(3)
    used_s = sum(process.cpu_times()[:2]) - before
    assert service.logged.count(EXHAUSTED) == 1
    assert "accept() out of system resource" not in service.logged, "the report of asyncio"
    assert used_s < 1.5, "accepting pauses"
    for _, writer in idle:
        writer.close()
    async with session.get(f"{service.url}/health") as response:
        assert response.status == 200
