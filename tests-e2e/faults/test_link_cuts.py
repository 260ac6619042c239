"""The link is cut at each message, and messages are repeated: one run, one end, nothing is lost."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest

from faults.link_proxy import LinkProxy, MessageFaults
from faults.workload import Workload
from harness import Portal, StartClient, StartServer, eventually


@pytest.fixture
async def proxy(start_client: StartClient) -> AsyncIterator[LinkProxy]:
    proxy = await LinkProxy((await start_client()).url).open()
    yield proxy
    await proxy.close()


@pytest.fixture
async def portal(
    proxy: LinkProxy, start_server: StartServer, session: aiohttp.ClientSession
) -> Portal:
    return Portal((await start_server(proxy.url, SERVICE_EXAMPLE_MAX_ATTEMPTS="1")).url, session)


async def until_cut(
    proxy: LinkProxy, portal: Portal, workload: Workload, cut: MessageFaults
) -> None:
    """Submit jobs until the link was cut."""
    async with asyncio.timeout(60):
        while cut.cut_at is not None and cut.count < cut.cut_at:
            await workload.submit(portal, "quick")
            await portal.end_of(max(workload.accepted))


async def connected_again(proxy: LinkProxy, links: int) -> None:
    """Wait until more than so many links were opened."""

    async def more() -> bool:
        return proxy.links > links

    await eventually(more)


@pytest.mark.parametrize("delivered", [False, True], ids=["lost", "delivered"])
@pytest.mark.parametrize("number", range(1, 7))
@pytest.mark.parametrize("direction", ["requests", "responses"])
async def test_trap_56_link_cut_after_any_message_costs_no_second_run(
    proxy: LinkProxy,
    portal: Portal,
    workload: Workload,
    direction: str,
    number: int,
    delivered: bool,
) -> None:
    faults: MessageFaults = getattr(proxy, direction)
    # From a message of the first or the next connection on, regardless of what was sent before.
    faults.cut_at, faults.delivered = faults.count + number, delivered
    for kind in ("quick", "failing", "gated"):
        await workload.submit(portal, kind)
    workload.open_gate()
    await until_cut(proxy, portal, workload, faults)
    await workload.check(portal)
    await connected_again(proxy, 1)


async def test_trap_56_repeated_and_reordered_messages_have_no_further_effect(
    proxy: LinkProxy, portal: Portal, workload: Workload
) -> None:
    proxy.requests.repeated = proxy.responses.repeated = True
    for _ in range(2):
        proxy.links = 0
        proxy.responses.cut_at = proxy.responses.count + 8
        for kind in ("quick", "failing", "quick"):
            await workload.submit(portal, kind)
        await until_cut(proxy, portal, workload, proxy.responses)
        await connected_again(proxy, 0)
    await workload.check(portal)
