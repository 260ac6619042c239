"""Messages of the link: any bytes are a list of items or malformed; queues are bounded."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st

from job_orchestrator.common.messages.payloads import InventoryEntry, LoadEvent
from job_orchestrator.common.protocol import link
from job_orchestrator.common.status import PayloadStatus
from job_orchestrator.common.web.link_socket import LinkBroken, LinkSocket, QueueFull

REQUESTS: list[link.Request] = [
    link.Assign(1, "k", b"\x90", [("outputs", "*.csv")], 1.5, "r"),
    link.Assign(2, "k", b""),
    link.Kill(3, 4),
    link.KillKey(4, "k"),
    link.Recall(5, "k"),
    link.Acknowledge(6, [1, 2]),
    link.ListPayloads(7),
]
FROM_CLIENT: list[link.Answer | link.Report] = [
    link.PayloadState(1, 2, PayloadStatus.FAILED, 3, "why"),
    link.Recalled(2, ended=True),
    link.Acknowledged(3),
    link.Inventory(4, [InventoryEntry(1, None, PayloadStatus.RUNNING)], last=False),
    link.Refused(5, link.Refusal.BUSY, "later"),
    link.Started(1, "k"),
    link.SlotFree(1, None, "packing"),
    link.Ended(1, "k", PayloadStatus.COMPLETED, 0, "", b"PK", b"digest"),
    link.Load(LoadEvent(1.0, 2.0, 3, 4, 5)),
]


def message_of(items: "list[link.Request] | list[link.Answer | link.Report]") -> bytes:
    return link.join_items([link.encode_item(item) for item in items])


def test_items_are_read_as_they_were_written_and_in_their_order() -> None:
    assert link.decode_requests(message_of(REQUESTS)) == REQUESTS
    assert link.decode_from_client(message_of(FROM_CLIENT)) == FROM_CLIENT


@pytest.mark.parametrize(
    "item",
    [
        link.Assign(1, "k", b"", request_id="x" * 201),
        link.Assign(1, "k", b"", request_id="job-1\nline"),
        link.Acknowledge(1, list(range(link.MAX_ACKNOWLEDGED + 1))),
    ],
    ids=["long", "line", "ids"],
)
def test_what_no_server_sends_is_malformed(item: link.Request) -> None:
    with pytest.raises(link.MalformedItem):
        link.decode_requests(message_of([item]))


def test_fields_that_a_later_version_appends_are_ignored() -> None:
    later = b"\x91\x94\xa4kill\x03\x04\xa5later"
    assert link.decode_requests(later) == [link.Kill(3, 4)]


@given(
    st.binary(max_size=200)
    | st.builds(
        lambda at, byte: message_of(REQUESTS)[:at] + bytes([byte]) + message_of(REQUESTS)[at + 1 :],
        st.integers(0, 120),
        st.integers(0, 255),
    )
    | st.builds(
        lambda at, byte: (
            message_of(FROM_CLIENT)[:at] + bytes([byte]) + message_of(FROM_CLIENT)[at + 1 :]
        ),
        st.integers(0, 250),
        st.integers(0, 255),
    )
)
def test_any_bytes_are_items_or_malformed(message: bytes) -> None:
    for decode in (
        link.decode_requests,
        link.decode_from_client,
        link.decode_server_hello,
        link.decode_client_hello,
    ):
        with contextlib.suppress(link.MalformedItem):
            assert decode(message)


@pytest.mark.parametrize(
    "message",
    [b"", b"\x90", b"\x91" * 100_000, b"\xdd\xff\xff\xff\xff", message_of([REQUESTS[0]])[:-1]],
    ids=["nothing", "no item", "nested", "long list", "cut off"],
)
def test_messages_that_are_not_whole_are_malformed(message: bytes) -> None:
    with pytest.raises(link.MalformedItem):
        link.decode_requests(message)


@asynccontextmanager
async def connected(max_queued_bytes: int) -> AsyncIterator[LinkSocket]:
    """Connect to a peer that reads nothing."""
    done = asyncio.Event()

    async def serve(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await done.wait()
        return socket

    app = web.Application()
    app.router.add_get("/", serve)
    async with TestServer(app) as server, ClientSession() as http:
        yield LinkSocket(
            await http.ws_connect(server.make_url("/")), max_queued_bytes=max_queued_bytes
        )
        done.set()


async def test_trap_57_queue_for_a_peer_that_does_not_read_is_bounded() -> None:
    limit = 1 << 20
    async with connected(limit) as socket:
        running = asyncio.create_task(socket.run(lambda _: None))
        item = link.encode_item(link.Assign(1, "k", bytes(60_000)))
        with pytest.raises(QueueFull):  # noqa: PT012 (until the buffers of the kernel are full)
            async with asyncio.timeout(60):
                while True:
                    socket.put(item)
                    assert socket.queued_bytes <= limit
                    await asyncio.sleep(0)
        socket.break_off(link.CloseCode.SLOW_READER, "too slow")
        with pytest.raises(LinkBroken, match="too slow"):
            await running


class StalledWebSocket:
    """WebSocket whose buffers are full: nothing is sent, nothing arrives."""

    async def send_bytes(self, _: bytes) -> None:
        await asyncio.Event().wait()

    async def receive(self) -> aiohttp.WSMessage:
        await asyncio.Event().wait()
        raise AssertionError

    async def close(self, *, code: int = 1000, message: bytes = b"") -> bool:
        return True


async def test_trap_57_room_in_a_full_queue_comes_from_items_that_are_withdrawn() -> None:
    item = link.encode_item(link.Assign(1, "k", bytes(60_000)))
    socket = LinkSocket(StalledWebSocket(), max_queued_bytes=2 * len(item))
    running = asyncio.create_task(socket.run(lambda _: None))
    socket.put(item)
    while not socket.sent:  # noqa: ASYNC110 (there is no event)
        await asyncio.sleep(0)
    for _ in range(2):
        socket.put(item)
    waiting = asyncio.create_task(socket.room(len(item)))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    assert socket.withdraw(socket.sent)
    assert not socket.withdraw(socket.sent - 1)
    async with asyncio.timeout(60):
        await waiting
    socket.break_off(link.CloseCode.SLOW_READER, "too slow")
    with pytest.raises(LinkBroken, match="too slow"):
        await running


@asynccontextmanager
async def recording() -> AsyncIterator[tuple[LinkSocket, list[bytes], asyncio.Event]]:
    """Connect to a peer that records the messages that it gets; the event is set by each."""
    messages: list[bytes] = []
    arrived = asyncio.Event()

    async def serve(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            messages.append(message.data)
            arrived.set()
        return socket

    app = web.Application()
    app.router.add_get("/", serve)
    async with TestServer(app) as server, ClientSession() as http:
        socket = LinkSocket(await http.ws_connect(server.make_url("/")))
        running = asyncio.create_task(socket.run(lambda _: None))
        yield socket, messages, arrived
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_held_item_shares_the_message_of_the_next_and_comes_first() -> None:
    async with recording() as (socket, messages, arrived), asyncio.timeout(30):
        socket.put(b"\x01", hold_s=3600.0)
        await asyncio.sleep(0)
        socket.put(b"\x02")
        await arrived.wait()
        assert messages == [link.join_items([b"\x01", b"\x02"])]


async def test_held_item_leaves_alone_after_its_time() -> None:
    async with recording() as (socket, messages, arrived), asyncio.timeout(30):
        socket.put(b"\x01", hold_s=0.01)
        await arrived.wait()
        assert messages == [link.join_items([b"\x01"])]
        assert socket.sent == 1
