"""Results that the server has stored don't stay on the client, whenever the server dies."""

import asyncio
import signal

import aiohttp
from faults.work import Workload

from harness import Portal, Service, StartClient, StartServer, eventually
from job_orchestrator.common.runtime.fault_injection import Point


async def payload_folders(client: Service) -> list[str]:
    folder = client.folder / "data" / "payloads"
    return await asyncio.to_thread(lambda: [path.name for path in folder.iterdir()])


async def test_trap_16_no_payload_stays_when_the_server_dies_after_each_end(
    start_client: StartClient,
    start_server: StartServer,
    session: aiohttp.ClientSession,
    workload: Workload,
) -> None:
    client = await start_client()
    server = await start_server(client, JO_FAULT=str(Point.SERVER_JOB_ENDED))
    portal = Portal(server.url, session)
    for kind in ("quick", "failing", "big"):
        await workload.submit(portal, kind)
        assert await server.died() == -signal.SIGKILL
        await server.start()
    del server.settings["JO_FAULT"]
    await server.end(signal.SIGKILL)
    await server.start()

    async def removed() -> bool:
        return await payload_folders(client) == []

    await eventually(removed)
    await workload.check(portal)
