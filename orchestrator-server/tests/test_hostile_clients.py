"""Hostile answers of clients: results without an end, answers byte by byte, long texts."""

import asyncio

import msgspec
import pytest
from aiohttp import web

from fake_client import FakeClient, StartClient, zip_of
from job_orchestrator.common.protocol.decoding import (
    CUT_OFF,
    MAX_TEXT_BYTES,
)
from job_orchestrator.common.runtime.backoff import Backoff
from job_orchestrator.common.status import PayloadStatus
from running_server import Server, StartServer, tuned

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
    """Answer that goes on for as long as it is read."""

    def __init__(
        self, block: bytes = bytes(MIB), pause_s: float = 0, kind: str = "application/zip"
    ) -> None:
        self.broken_off = asyncio.Event()
        self._block, self._pause_s, self._kind = block, pause_s, kind

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        await request.read()
        response = web.StreamResponse(headers={"Content-Type": self._kind})
        await response.prepare(request)
        try:
            while True:
                await response.write(self._block)
                await asyncio.sleep(self._pause_s)
        finally:
            self.broken_off.set()


async def test_endless_results_are_broken_off_and_fail_the_job(
    server: Server, client: FakeClient
) -> None:
    endless = client.instead["retrieve"] = Endless()
    job = await server.submit()
    client.complete(await client.next_payload())
    assert await server.ended(job) == ("Failed", TOO_LARGE)
    async with asyncio.timeout(60):
        await endless.broken_off.wait()
    assert [name for name in server.folders() if "output" in name] == []
    assert server.rows("SELECT has_output, output_bytes FROM jobs") == [(0, None)]


@pytest.mark.parametrize("status", [PayloadStatus.FAILED, PayloadStatus.INVALID])
async def test_endless_output_of_a_failed_payload_is_broken_off_and_the_job_keeps_its_reason(
    server: Server, client: FakeClient, status: PayloadStatus
) -> None:
    endless = client.instead["partial"] = Endless()
    job = await server.submit()
    client.report(await client.next_payload(), status, message="It is no good")
    assert await server.ended(job) == (status, f"It is no good. {TOO_LARGE}")
    await endless.broken_off.wait()
    assert [name for name in server.folders() if "output" in name] == []


async def test_endless_output_of_a_killed_payload_is_broken_off_and_dropped(
    server: Server, client: FakeClient
) -> None:
    endless = client.instead["partial"] = Endless()
    job = await server.submit()
    await client.next_payload()
    await server.until(job, "Submitted")
    async with server.http.post(f"/terminate/{job}") as response:
        assert response.status == 200
    async with asyncio.timeout(60):
        await endless.broken_off.wait()
    await server.eventually(lambda: bool(client.acknowledged))
    assert [name for name in server.folders() if "output" in name] == []


async def test_results_of_exactly_the_maximum_size_are_kept(
    server: Server, client: FakeClient
) -> None:
    job = await server.submit()
    payload = await client.next_payload()
    padding = 4 * MIB - len(zip_of(out=""))
    client.complete(payload, out="x" * padding)
    assert await server.ended(job) == ("Completed", "")
    assert server.rows("SELECT output_bytes FROM jobs") == [(4 * MIB,)]


@tuned(json_timeout_s=0.2, resubmit_backoff=Backoff((0.0,)))
async def test_answer_that_trickles_in_counts_as_lost_and_is_requested_again(
    server: Server, client: FakeClient
) -> None:
    drip = client.instead["submit"] = Endless(b" ", 0.01, "application/json")
    job = await server.submit()
    async with asyncio.timeout(60):
        await drip.broken_off.wait()
    del client.instead["submit"]
    client.complete(await client.next_payload())
    assert await server.ended(job) == ("Completed", "")
    assert server.rows("SELECT attempt FROM jobs") == [(1,)]


@tuned(slow_results_after_s=0.2, fetch_retry_s=0.0)
async def test_results_that_trickle_in_are_given_up_and_fetched_again(
    server: Server, client: FakeClient
) -> None:
    drip = client.instead["retrieve"] = Endless(b"P", 0.01)
    job = await server.submit()
    client.complete(await client.next_payload())
    async with asyncio.timeout(60):
        await drip.broken_off.wait()
    del client.instead["retrieve"]
    assert await server.ended(job) == ("Completed", "")


async def test_long_message_of_a_client_is_cut_off(server: Server, client: FakeClient) -> None:
    job = await server.submit()
    payload = await client.next_payload()
    client.report(payload, PayloadStatus.FAILED, push=False)
    client.payloads[payload] = msgspec.structs.replace(
        client.payloads[payload], message="ä" * MIB, exit_code=1
    )
    client.push(b'event: payload\ndata: {"id": %d, "status": "Failed"}\n\n' % payload)
    status, message = await server.ended(job)
    assert status == "Failed"
    assert message.startswith("ää")
    assert message.endswith(CUT_OFF)
    assert len(message.encode()) in range(MAX_TEXT_BYTES - 4, MAX_TEXT_BYTES + 1)
