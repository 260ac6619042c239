"""Memory of idle services."""

import aiohttp
import psutil

from harness import Portal, StartClient, StartServer

IDLE_BYTES = 60 << 20
# No coverage in the measured processes: it takes memory.
NO_COVERAGE = {"COVERAGE_PROCESS_CONFIG": "", "COVERAGE_PROCESS_START": ""}


async def test_idle_services_stay_within_60_mib_each(
    start_client: StartClient, start_server: StartServer, session: aiohttp.ClientSession
) -> None:
    client = await start_client(**NO_COVERAGE)
    server = await start_server(client, **NO_COVERAGE)
    portal = Portal(server.url, session)
    await portal.end_of(await portal.submit("echo done\n"))
    # Memory that serving the OpenAPI document takes must be returned to the system.
    for service in (server, client):
        async with session.get(f"{service.url}/api-docs/openapi.json") as response:
            assert (await response.json())["openapi"].startswith("3.")
    for service in (server, client):
        assert psutil.Process(service.pid).memory_info().rss <= IDLE_BYTES, service.name
