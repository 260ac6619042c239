"""What a client sends is not believed: results without an end, and messages as long as books."""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import pytest
from aiohttp import web

from fake_client import FakeClient, zip_of
from orchestrator_common.models import CUT_OFF, MAX_TEXT_BYTES
from orchestrator_common.status import PayloadStatus
from running_server import Server, StartServer

StartClient = Callable[[FakeClient], Awaitable[str]]

MIB = 1 << 20
TOO_LARGE = "The results are larger than 4 MiB (MAX_RESULT_SIZE of jo-server); they were not kept"


@pytest.fixture
async def server(
    start_server: StartServer, start_client: StartClient, client: FakeClient
) -> Server:
    server = await start_server(await start_client(client), MAX_RESULT_SIZE="4MiB")
    await client.connected.wait()
    return server


class Endless:
    """An answer that begins like results, and goes on for as long as it is read."""

    def __init__(self) -> None:
        self.broken_off = asyncio.Event()

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/zip"})
        await response.prepare(request)
        try:
            await response.write(zip_of(out="x"))
            while True:
                await response.write(bytes(MIB))
        finally:
            self.broken_off.set()


async def test_results_without_an_end_are_broken_off_and_the_job_is_failed(
    server: Server, client: FakeClient
) -> None:
    endless = client.instead["retrieve"] = Endless()
    job = await server.submit()
    client.complete(await client.next_payload())
    assert await server.ended(job) == ("Failed", TOO_LARGE)
    async with asyncio.timeout(20):
        await endless.broken_off.wait()
    assert [name for name in server.folders() if "output" in name] == []
    assert server.rows("SELECT has_output, output_bytes FROM jobs") == [(0, None)]


@pytest.mark.parametrize("status", [PayloadStatus.FAILED, PayloadStatus.INVALID])
async def test_output_of_a_failed_payload_that_has_no_end_is_broken_off(
    server: Server, client: FakeClient, status: PayloadStatus
) -> None:
    endless = client.instead["partial"] = Endless()
    job = await server.submit()
    client.report(await client.next_payload(), status, message="It is no good")
    assert await server.ended(job) == (status, f"It is no good. {TOO_LARGE}")
    await endless.broken_off.wait()
    assert [name for name in server.folders() if "output" in name] == []


async def test_output_of_a_killed_payload_that_has_no_end_is_broken_off(
    server: Server, client: FakeClient
) -> None:
    endless = client.instead["partial"] = Endless()
    job = await server.submit()
    await client.next_payload()
    await server.until(job, "Submitted")
    async with server.http.post(f"/terminate/{job}") as response:
        assert response.status == 200
    async with asyncio.timeout(20):
        await endless.broken_off.wait()
    await server.eventually(lambda: bool(client.discarded))
    assert [name for name in server.folders() if "output" in name] == []


async def test_results_as_large_as_they_may_be_are_kept(server: Server, client: FakeClient) -> None:
    job = await server.submit()
    payload = await client.next_payload()
    padding = 4 * MIB - len(zip_of(out=""))
    client.complete(payload, out="x" * padding)
    assert await server.ended(job) == ("Completed", "")
    assert server.rows("SELECT output_bytes FROM jobs") == [(4 * MIB,)]


async def test_long_message_of_a_client_is_cut_off(server: Server, client: FakeClient) -> None:
    job = await server.submit()
    payload = await client.next_payload()
    client.report(payload, PayloadStatus.FAILED, push=False)
    client.payloads[payload] = msgspec.structs.replace(
        client.payloads[payload], message="ä" * MIB, exit_code=1
    )
    client._push(b'event: payload\ndata: {"id": %d, "status": "Failed"}\n\n' % payload)
    status, message = await server.ended(job)
    assert status == "Failed"
    assert message.startswith("ää")
    assert message.endswith(CUT_OFF)
    assert len(message.encode()) in range(MAX_TEXT_BYTES - 4, MAX_TEXT_BYTES + 1)
