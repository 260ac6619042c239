"""Partial results: no number of requests for them delays the end of a payload."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from job_orchestrator.client import keys
from job_orchestrator.client.results.partial import MAX_PER_PAYLOAD
from running_client import Client, StartClient

Answer = tuple[int, str]


@pytest.fixture
async def client(start_client: StartClient) -> Client:
    return await start_client(SLOTS=str((os.cpu_count() or 1) + 1))


async def endless_to_pack(client: Client, endless: str) -> int:
    """Start a payload whose files take very long to pack."""
    payload = await client.submit(f"{endless} touch up; exec sleep 4721\n")
    await client.until(payload, "Running")
    return payload


@asynccontextmanager
async def requesting(
    client: Client, payloads: list[int], times: int
) -> AsyncIterator[set["asyncio.Task[Answer]"]]:
    """Request the partial results of each payload ``times`` times, until the end of the block."""

    async def request(payload: int) -> Answer:
        async with client.http.get(f"/retrieve_partial/{payload}") as response:
            return response.status, response.headers.get("Retry-After", "")

    requests = {asyncio.create_task(request(payload)) for payload in payloads for _ in range(times)}
    try:
        yield requests
    finally:
        await client.app[keys.RUNNER].stop()
        await asyncio.wait(requests)


async def test_payload_ends_while_many_partial_results_are_packed(
    client: Client, endless: str
) -> None:
    payloads = [await endless_to_pack(client, endless) for _ in range(os.cpu_count() or 1)]
    await client.eventually(lambda: len(list(client.data.glob("*/work/up"))) == len(payloads))
    async with requesting(client, payloads, MAX_PER_PAYLOAD) as requests:
        assert (await client.run("exit 0\n"))["status"] == "Completed"
        assert not any(task.done() for task in requests)


async def test_partial_results_of_a_payload_beyond_the_limit_are_refused(
    client: Client, endless: str
) -> None:
    payload = await endless_to_pack(client, endless)
    await client.eventually(lambda: any(client.data.glob("*/work/up")))
    async with requesting(client, [payload], MAX_PER_PAYLOAD + 2) as requests:
        refused: set[asyncio.Task[Answer]] = set()
        while len(refused) < 2:
            refused, _ = await asyncio.wait(requests, return_when=asyncio.FIRST_COMPLETED)
        assert [task.result() for task in refused] == [(503, "5")] * 2


async def test_partial_results_in_sequence_are_not_limited(
    client: Client,
) -> None:
    payload = await client.submit("touch up; exec sleep 4723\n")
    await client.eventually(lambda: any(client.data.glob("*/work/up")))
    for _ in range(MAX_PER_PAYLOAD + 1):
        assert "up" in (await client.archive(payload)).namelist()
    await client.kill(payload)
