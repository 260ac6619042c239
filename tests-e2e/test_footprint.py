"""Memory of idle services."""

import aiohttp
import psutil

from harness import Portal, StartClient, StartServer

IDLE_BYTES = 60 << 20
# Coverage would take memory in the measured process.
PLAIN = {"COVERAGE_PROCESS_CONFIG": "", "COVERAGE_PROCESS_START": ""}


async def test_idle_services_stay_within_60_mib_each(
    start_client: StartClient, start_server: StartServer, session: aiohttp.ClientSession
) -> None:
    client = await start_client(**PLAIN)
    server = await start_server(client, **PLAIN)
    portal = Portal(server.url, session)
    await portal.end_of(await portal.submit("echo done\n"))
    # The API document is built on request, and its memory is released.
    for service in (server, client):
        async with session.get(f"{service.url}/api-docs/openapi.json") as response:
            assert (await response.json())["openapi"].startswith("3.")
    for service in (server, client):
        assert psutil.Process(service.pid).memory_info().rss <= IDLE_BYTES, service.name
