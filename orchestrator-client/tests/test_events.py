"""Event stream: bounded queues, keep-alive comments, and its end when the client stops."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest

from job_orchestrator.client import keys
from job_orchestrator.client.model import PayloadRow
from job_orchestrator.client.payloads.events import EventHub, EventStream
from job_orchestrator.client.web import streams
from job_orchestrator.common.messages.payloads import LoadEvent
from job_orchestrator.common.protocol.sse import read_events
from job_orchestrator.common.runtime.bounded_queue import MAX_QUEUED, SubscriberQueue
from job_orchestrator.common.status import PayloadStatus
from job_orchestrator.common.web import streaming
from running_client import Client


def row(message: str = "", status: PayloadStatus = PayloadStatus.RUNNING) -> PayloadRow:
    return PayloadRow(1, "u", None, "", None, status, False, None, message, None)


async def _chunks(found: list[bytes] | None) -> AsyncIterator[bytes]:
    for chunk in found or ():
        yield chunk


@contextmanager
def following(hub: EventHub) -> Iterator[SubscriberQueue[bytes]]:
    """Follow the events by HTTP within the block."""
    stream = EventStream(hub.load)
    with hub.followed_by(stream):
        yield stream.backlog


async def test_reader_that_falls_behind_gets_what_waits_and_then_the_end() -> None:
    hub = EventHub()
    with following(hub) as slow, following(hub) as quick:
        for _ in range(MAX_QUEUED + 100):
            hub.on_payload_changed(row())
            assert await quick.next(1)
        assert len(await slow.next(1) or ()) == MAX_QUEUED
        assert await slow.next(1) is None
        hub.on_payload_changed(row())
        assert await quick.next(1)


async def test_new_reader_gets_the_last_load_first() -> None:
    hub = EventHub()
    hub.publish_load(LoadEvent(1.0, 2.0, 3, 4, 5))
    with following(hub) as reader:
        hub.on_payload_changed(row())
        events = [event async for event in read_events(_chunks(await reader.next(1)))]
        assert [event.kind for event in events] == ["load", "payload"]


async def test_prepared_payload_is_not_published() -> None:
    hub = EventHub()
    with following(hub) as reader:
        assert await reader.next(1)  # the load
        hub.on_payload_changed(row(status=PayloadStatus.PREPARED))
        assert await reader.next(0.01) == []


async def test_close_of_the_hub_ends_open_and_later_streams() -> None:
    hub = EventHub()
    with following(hub) as present:
        assert await present.next(1)
        hub.close()
        assert await present.next(1) is None
    with following(hub) as late:
        assert await late.next(1)
        assert await late.next(1) is None


async def test_idle_stream_sends_keep_alive_comments(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "KEEP_ALIVE_S", 0.01)
    async with asyncio.timeout(60), client.http.get("/events") as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        while b": keep-alive\n\n" not in await response.content.readany():
            pass


async def test_reader_that_reads_nothing_is_disconnected(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "WRITE_TIMEOUT_S", 0.1)
    hub = client.app[keys.EVENTS]
    with socket.socket() as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(reader, (client.url.host, client.url.port))
        await loop.sock_sendall(reader, b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
        await client.eventually(lambda: hub.open_streams == 1)
        for _ in range(200):
            hub.on_payload_changed(row("x" * 100_000))
        await client.eventually(lambda: hub.open_streams == 0)


async def test_client_stops_immediately_although_a_reader_reads_nothing(client: Client) -> None:
    hub = client.app[keys.EVENTS]
    async with client.http.get("/events"):
        await client.eventually(lambda: hub.open_streams == 1)
        # Less than the time-out of a write.
        async with asyncio.timeout(15):
            await client.app.shutdown()
        await client.eventually(lambda: hub.open_streams == 0)
