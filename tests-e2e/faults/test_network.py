"""Network faults between server and client: every job ends with its results after one run."""

import asyncio
import os
import signal

import aiohttp
import psutil
import pytest

from faults.conftest import OpenProxy
from faults.link_proxy import LinkProxy
from faults.proxy import LinkConditions, Proxy
from faults.workload import Workload
from harness import Portal, Service, StartClient, StartServer, eventually

HTML = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>"
BAD_GATEWAY = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
HALF_A_ZIP = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/zip\r\nContent-Length: 4\r\n\r\nPK\x05\x06"
)


@pytest.fixture
async def client(start_client: StartClient) -> Service:
    return await start_client()


@pytest.fixture
async def proxy(client: Service, open_proxy: OpenProxy) -> Proxy:
    return await open_proxy(client)


@pytest.fixture
async def portal(proxy: Proxy, start_server: StartServer, session: aiohttp.ClientSession) -> Portal:
    return Portal((await start_server(proxy.url)).url, session)


@pytest.mark.parametrize("direction", ["requests", "responses"])
@pytest.mark.parametrize("after", [0, 150, 900])
async def test_trap_17_connection_that_breaks_after_some_bytes_costs_no_second_run(
    proxy: Proxy, portal: Portal, workload: Workload, direction: str, after: int
) -> None:
    conditions: LinkConditions = getattr(proxy, direction)
    conditions.cut_after = after
    for kind in ("quick", "failing"):
        await workload.submit(portal, kind)
    await workload.check(portal)


@pytest.mark.parametrize("garbage", [HTML, BAD_GATEWAY, HALF_A_ZIP, b"\x00" * 200])
async def test_trap_17_garbage_for_an_answer_costs_no_second_run(
    proxy: Proxy, portal: Portal, workload: Workload, garbage: bytes
) -> None:
    job = await workload.submit(portal, "gated")
    await portal.until(job, "Running")
    proxy.responses.garbage = garbage  # for the event stream, or the next submit
    await workload.submit(portal, "quick")
    workload.open_gate()
    await workload.check(portal)


async def test_trap_21_refused_connections_cost_a_wait(
    proxy: Proxy, portal: Portal, workload: Workload
) -> None:
    first = await workload.submit(portal, "gated")
    await portal.until(first, "Running")
    await proxy.refuse()
    await portal.until(first, "Unknown")
    await workload.submit(portal, "quick")
    workload.open_gate()
    await proxy.open()
    await workload.check(portal)


async def test_client_that_refuses_the_host_name_costs_a_wait_and_says_why(
    client: Service,
    start_server: StartServer,
    session: aiohttp.ClientSession,
    workload: Workload,
) -> None:
    proxy = await LinkProxy(client.url).open()
    server = await start_server(proxy.url, SERVICE_EXAMPLE_MAX_ATTEMPTS="1")
    portal = Portal(server.url, session)
    await workload.submit(portal, "quick")
    await workload.check(portal)
    await client.end()
    proxy.host = "client.example.org"
    await client.start()
    await workload.submit(portal, "quick")

    async def says_why() -> bool:
        async with session.get(f"{server.url}/clients") as response:
            (found,) = (await response.json())["clients"]
            return "ALLOWED_HOSTS" in found["problem"]

    await eventually(says_why)
    proxy.host = ""
    await workload.check(portal)
    await proxy.close()


async def test_trap_25_nothing_passes_for_a_while_and_what_was_held_arrives_later(
    proxy: Proxy, portal: Portal, workload: Workload
) -> None:
    job = await workload.submit(portal, "gated")
    await portal.until(job, "Running")
    proxy.pause()
    await workload.submit(portal, "quick")
    workload.open_gate()
    await asyncio.sleep(1)  # the duration of the fault
    proxy.resume()
    await workload.check(portal)


async def test_jobs_complete_over_a_slow_network(
    proxy: Proxy, portal: Portal, workload: Workload
) -> None:
    proxy.requests.delay_s = proxy.responses.delay_s = 0.05
    for kind in ("quick", "big", "failing"):
        await workload.submit(portal, kind)
    await workload.check(portal)


async def test_trap_16_job_runs_elsewhere_after_lost_after_and_its_first_run_is_ended(
    start_client: StartClient,
    start_server: StartServer,
    open_proxy: OpenProxy,
    session: aiohttp.ClientSession,
    workload: Workload,
) -> None:
    silent, other = await start_client(SLOTS="20"), await start_client(SLOTS="1")
    proxy = await open_proxy(silent)
    server = await start_server(
        proxy.url,
        other,
        LOST_AFTER="1s",
        SERVICE_EXAMPLE_MAX_ATTEMPTS="9",
        JO_FAULT="server.job-lost",
    )
    portal = Portal(server.url, session)

    async def both_are_connected() -> bool:
        return server.logged.count("is connected") == 2

    await eventually(both_are_connected)
    job = await workload.submit(portal, "gated")

    async def runs_there() -> bool:
        return await asyncio.to_thread(_scripts_of, silent) == 1

    await eventually(runs_there)
    await portal.until(job, "Running")
    await proxy.refuse()
    # The abandoned attempt survives crashes of the server, before and after its termination.
    assert await server.died() == -signal.SIGKILL
    server.settings["JO_FAULT"] = "server.stray-ended"
    await server.start()

    async def runs_elsewhere() -> bool:
        return await asyncio.to_thread(_scripts_of, other) == 1

    await eventually(runs_elsewhere)
    assert await runs_there(), "the client can't be reached"
    await proxy.open()
    assert await server.died() == -signal.SIGKILL
    del server.settings["JO_FAULT"]
    await server.start()

    async def ended_there() -> bool:
        return await asyncio.to_thread(_scripts_of, silent) == 0

    await eventually(ended_there)
    workload.open_gate()
    await workload.check(portal, max_runs=2)


def _scripts_of(client: Service) -> int:
    count = 0
    for child in psutil.Process(client.pid).children(recursive=True):
        try:
            # The session leader only: a process forked by bash has the same command line briefly.
            count += child.cmdline()[-1:] == ["run.sh"] and os.getsid(child.pid) == child.pid
        except (psutil.Error, ProcessLookupError):
            continue
    return count
