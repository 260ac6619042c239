"""Output of a script is served exactly, from any byte on, while it runs and afterwards."""

import asyncio

import pytest

from job_orchestrator.client import keys
from running_client import Client

WAITING = "printf 'one\\n'; printf 'bad\\n' >&2; mkfifo go; read _ < go; printf '\\377two'\n"


async def output_of(client: Client, payload: int, query: str = "") -> bytes:
    async with client.http.get(f"/logs/{payload}{query}") as response:
        assert response.status == 200, await response.text()
        assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
        return await response.read()


async def resume(client: Client, payload: int) -> None:
    row = await client.app[keys.STORE].get(payload)
    fifo = client.data / row.uuid / "work" / "go"
    await client.eventually(fifo.exists)
    await asyncio.to_thread(fifo.write_text, "\n")


async def test_followed_output_comes_as_it_is_written_and_ends_with_the_payload(
    client: Client,
) -> None:
    payload = await client.submit(WAITING)
    async with asyncio.timeout(60), client.http.get(f"/logs/{payload}?follow=1") as response:
        assert await response.content.readexactly(4) == b"one\n"
        assert await output_of(client, payload) == b"one\n"
        assert await output_of(client, payload, "?stream=stderr") == b"bad\n"
        await resume(client, payload)
        assert await response.read() == b"\xfftwo"
    assert await output_of(client, payload, "?follow=1") == b"one\n\xfftwo"
    for offset, rest in ((0, b"one\n\xfftwo"), (5, b"two"), (8, b""), (10**17, b"")):
        assert await output_of(client, payload, f"?offset={offset}") == rest


async def test_large_output_is_complete(client: Client) -> None:
    await client.run("head -c 3000001 /dev/zero | tr '\\0' x; exit 1\n")
    (payload,) = [row.id for row in await client.app[keys.STORE].ended_before(-10, 10)]
    assert len(await output_of(client, payload, "?offset=1")) == 3_000_000


async def test_payload_that_has_not_started_has_no_output(client: Client) -> None:
    payload = await client.submit("echo unheard; mkfifo go; read _ < go\n")
    await client.kill(payload)
    async with asyncio.timeout(60):
        assert await output_of(client, payload, "?follow=1") in (b"", b"unheard\n")


async def test_following_ends_when_the_client_stops(client: Client) -> None:
    payload = await client.submit(WAITING)
    async with asyncio.timeout(60), client.http.get(f"/logs/{payload}?follow=1") as response:
        assert await response.content.readexactly(4) == b"one\n"
        client.app[keys.SCRIPT_OUTPUT].close()
        assert await response.read() == b""
    await client.kill(payload)
    assert client.app[keys.SCRIPT_OUTPUT].followed_count == 0


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/logs/7", 404, "Payload 7 not found"),
        ("/logs/7?stream=out", 400, "Invalid stream 'out', should be stdout or stderr"),
        ("/logs/7?offset=-1", 400, "Invalid offset '-1', should be a number of bytes"),
        ("/logs/7?follow=yes", 400, "Invalid follow 'yes', should be 0 or 1"),
    ],
)
async def test_request_that_cannot_be_served_is_refused(
    client: Client, path: str, status: int, message: str
) -> None:
    async with client.http.get(path) as response:
        assert response.status == status
        assert (await response.json())["message"] == message
