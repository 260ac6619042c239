"""The contract of ``ClientTransport``, against a client that is controlled by the test.

A second transport is one more entry of ``CONNECT``.
"""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
from aiohttp import web

from fake_client import Answer, FakeClient, StartClient, answering, hang_up, never, zip_of
from job_orchestrator.common.messages.payloads import (
    InventoryEntry,
    LoadEvent,
    Payload,
    PayloadEvent,
)
from job_orchestrator.common.protocol.link import CloseCode
from job_orchestrator.common.protocol.small_files import SmallFile, encode_files
from job_orchestrator.common.status import PayloadStatus
from job_orchestrator.server.clients.base import (
    BLOCK_BYTES,
    ClientTransport,
    EndedPayload,
    EventsNotOffered,
    InventoryNotOffered,
    SmallInputs,
)
from job_orchestrator.server.clients.connector import TcpConnector
from job_orchestrator.server.clients.http import MAX_JSON_BYTES, HttpTransport
from job_orchestrator.server.clients.http_connection import ClientConnection
from job_orchestrator.server.clients.link import LinkTerms, LinkTransport
from job_orchestrator.server.errors import (
    AccessRefused,
    AnswerLost,
    ClientBusy,
    ClientError,
    ClientFailed,
    ClientRefused,
    ClientTimeout,
    ClientUnreachable,
    PayloadLost,
    TokenRefused,
)
from job_orchestrator.server.model import ClientUrls, StoredOutput
from job_orchestrator.server.tuning import Tuning
from tunnel_peer import TunnelPeer

TOKEN = "a-token-of-32-characters-or-more"
Connect = Callable[[str, Tuning], ClientTransport]

PEERS: list[TunnelPeer] = []
"""Tunnels of the test that runs."""


@pytest.fixture(autouse=True)
async def close_tunnels() -> AsyncIterator[None]:
    yield
    while PEERS:
        await PEERS.pop().close()


def urls_at(url: str) -> ClientUrls:
    return ClientUrls(f"{url}/submit", f"{url}/retrieve", f"{url}/kill")


def connect_by_http(url: str, tuning: Tuning) -> ClientTransport:
    urls = urls_at(url)
    return HttpTransport(urls, ClientConnection(urls, TcpConnector(TOKEN)), tuning)


def connect_by_link(url: str, tuning: Tuning) -> ClientTransport:
    terms = LinkTerms("installation", 64_000)
    return LinkTransport(urls_at(url), TcpConnector(TOKEN), terms, tuning)


def connect_by_tunnel(url: str, tuning: Tuning) -> ClientTransport:
    """Connect to a client that has dialed."""
    terms = LinkTerms("installation", 64_000)
    PEERS.append(TunnelPeer(url))
    return LinkTransport(urls_at(url), PEERS[-1].connector, terms, tuning)


CONNECT: dict[str, Connect] = {
    "http": connect_by_http,
    "link": connect_by_link,
    "tunnel": connect_by_tunnel,
    # The client offers no link: everything goes by HTTP.
    "old": connect_by_link,
}

by_http = pytest.mark.parametrize("way", ["http", "old"])
"""For tests of what only HTTP has: older clients, bodies of any kind, answers of proxies."""

by_link = pytest.mark.parametrize("way", ["link", "tunnel"])


@pytest.fixture(params=CONNECT)
def way(request: pytest.FixtureRequest) -> str:
    """Return the name of the way to connect."""
    return str(request.param)


@pytest.fixture
def connect(way: str) -> Connect:
    """Return the way to connect to a client at a URL."""
    return CONNECT[way]


@pytest.fixture
async def transport(
    connect: Connect, way: str, client: FakeClient, start_client: StartClient, tuning: Tuning
) -> AsyncIterator[ClientTransport]:
    """Connect to the fake client, and open the link if there is one."""
    client.offers_link = way in ("link", "tunnel")
    transport = connect(await start_client(client), tuning)
    async with contextlib.AsyncExitStack() as stack:
        if client.offers_link:
            await stack.enter_async_context(transport.events())
        yield transport
    await transport.close()


class Blocks:
    """Receiver that keeps everything in memory."""

    def __init__(self) -> None:
        self.blocks: list[bytes] = []

    async def receive(
        self, blocks: AsyncIterator[bytes], sha256: bytes | None = None
    ) -> StoredOutput:
        self.blocks, self.sha256 = [block async for block in blocks], sha256
        return stored(b"".join(self.blocks))


def stored(content: bytes) -> StoredOutput:
    return StoredOutput(len(content), hashlib.sha256(content).digest())


def files() -> SmallInputs:
    return SmallInputs(
        encode_files([SmallFile("run.sh", b"exit 0\n"), SmallFile("in/a.txt", b"1")])
    )


async def submit(transport: ClientTransport, key: str = "k") -> int:
    return (await transport.submit(files(), key)).id


async def read(blocks: AsyncIterator[bytes]) -> bytes:
    return b"".join([block async for block in blocks])


def requests(transport: ClientTransport) -> dict[str, Coroutine[Any, Any, object]]:
    """Return one request of each kind, by the fake client's name of its handler.

    Events come last: they can't be opened a second time while a link is open.
    """
    return {
        "submit": transport.submit(files(), "k"),
        "retrieve": transport.retrieve(1, "k", Blocks()),
        "partial": transport.retrieve_partial(1, Blocks()),
        "kill": transport.kill(1),
        "kill_key": transport.kill_key("k"),
        "acknowledge": transport.acknowledge([1]),
        "inventory": transport.inventory(),
        "load": transport.load(),
        "events": open_events(transport),
    }


async def open_events(transport: ClientTransport) -> None:
    async with transport.events():
        pass


async def test_submit_hands_over_the_files_and_returns_the_payload(
    transport: ClientTransport, client: FakeClient
) -> None:
    payload = await transport.submit(files(), "k", time_limit_s=1.5)
    assert payload == Payload(1, PayloadStatus.PREPARED)
    assert client.names[1] == {"run.sh", "in/a.txt"}
    assert client.keys[1] == "k"


async def test_submit_with_the_same_key_returns_the_same_payload(
    transport: ClientTransport, client: FakeClient
) -> None:
    assert await submit(transport) == await submit(transport)
    assert await submit(transport, "other") == 2
    assert len(client.payloads) == 2


@pytest.mark.parametrize(
    "answer", [answering(200, "[]"), answering(200, "<html>", "text/html"), hang_up]
)
async def test_submit_whose_answer_is_not_from_the_client_is_lost(
    transport: ClientTransport, client: FakeClient, answer: Answer
) -> None:
    client.instead["submit"] = answer
    with pytest.raises(AnswerLost):
        await submit(transport)


async def test_retrieve_of_an_unfinished_payload_returns_its_state(
    transport: ClientTransport, client: FakeClient
) -> None:
    payload_id = await submit(transport)
    client.report(payload_id, PayloadStatus.RUNNING)
    receiver = Blocks()
    answer = await transport.retrieve(payload_id, "k", receiver)
    assert isinstance(answer, Payload)
    assert answer.status is PayloadStatus.RUNNING
    assert receiver.blocks == []


async def test_retrieve_of_results_hands_large_blocks_to_the_receiver(
    transport: ClientTransport, client: FakeClient
) -> None:
    payload_id = await submit(transport)
    client.complete(payload_id, out="x" * (3 * BLOCK_BYTES))
    receiver = Blocks()
    received = await transport.retrieve(payload_id, "k", receiver)
    assert b"".join(receiver.blocks) == client.results[payload_id]
    assert received == stored(client.results[payload_id])
    assert receiver.sha256 == stored(client.results[payload_id]).sha256
    assert all(len(block) >= BLOCK_BYTES for block in receiver.blocks[:-1])


async def test_retrieve_with_another_key_finds_no_payload(
    transport: ClientTransport, client: FakeClient
) -> None:
    client.complete(await submit(transport))
    receiver = Blocks()
    with pytest.raises(PayloadLost):
        await transport.retrieve(1, "other", receiver)
    assert receiver.blocks == []


async def test_error_of_the_receiver_is_raised_as_it_is(
    transport: ClientTransport, client: FakeClient
) -> None:
    class Full(Blocks):
        async def receive(
            self, blocks: AsyncIterator[bytes], sha256: bytes | None = None
        ) -> StoredOutput:
            raise OSError("no space")

    client.complete(await submit(transport))
    with pytest.raises(OSError, match="no space"):
        await transport.retrieve(1, "k", Full())


async def test_results_that_break_off_are_an_error_for_the_receiver(
    transport: ClientTransport, client: FakeClient
) -> None:
    client.complete(await submit(transport))

    async def break_off(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/zip"})
        response.content_length = 1000
        await response.prepare(request)
        await response.write(b"PK")
        assert request.transport is not None
        request.transport.close()
        return response

    client.instead["retrieve"] = break_off
    receiver = Blocks()
    with pytest.raises(AnswerLost):
        await transport.retrieve(1, "k", receiver)
    assert receiver.blocks == []


async def test_partial_output_is_received_and_streamed(
    transport: ClientTransport, client: FakeClient
) -> None:
    payload_id, expected = await submit(transport), zip_of(partial="so far")
    receiver = Blocks()
    assert (await transport.retrieve_partial(payload_id, receiver)).size == len(expected)
    async with transport.open_partial(payload_id) as output:
        assert output.size == len(expected)
        assert len(await read(output.blocks)) == len(expected)


async def test_logs_are_streamed_from_an_offset(
    transport: ClientTransport, client: FakeClient
) -> None:
    async def logs(request: web.Request) -> web.StreamResponse:
        assert request.query["stream"] == "stderr"
        return web.Response(body=b"0123456789"[int(request.query["offset"]) :])

    client.instead["logs"] = logs
    async with transport.open_logs(1, "stderr", 4, follow=False) as output:
        assert await read(output.blocks) == b"456789"


async def test_kill_ends_a_payload_and_leaves_an_ended_one_as_it_is(
    transport: ClientTransport, client: FakeClient
) -> None:
    running, done = await submit(transport, "1"), await submit(transport, "2")
    client.complete(done)
    killed, ended = await transport.kill(running), await transport.kill(done)
    assert killed is not None
    assert killed.status is PayloadStatus.KILLED
    assert ended is not None
    assert ended.status is PayloadStatus.COMPLETED


@by_http
async def test_files_that_an_older_client_sends_back_are_left_out(
    transport: ClientTransport, client: FakeClient
) -> None:
    echoed = ",".join(map(str, bytes(range(256)) * 100_000))
    answer = f'{{"id": 7, "input": {{"a": [{echoed}], "b": []}}, "status": "Prepared"}}'
    assert len(answer) > MAX_JSON_BYTES
    client.instead["submit"] = answering(200, answer)
    payload = await transport.submit(files(), "k")
    assert (payload.id, payload.status) == (7, PayloadStatus.PREPARED)


@by_http
async def test_kill_by_an_older_client_that_reports_no_payload_returns_none(
    transport: ClientTransport, client: FakeClient
) -> None:
    client.instead["kill"] = answering(200, "true")
    assert await transport.kill(1) is None


async def test_kill_by_key_reaches_a_payload_whose_id_is_not_known(
    transport: ClientTransport, client: FakeClient
) -> None:
    payload_id = await submit(transport)
    assert (await transport.kill_key("k")).id == payload_id
    assert client.payloads[payload_id].status is PayloadStatus.KILLED
    assert (await transport.kill_key("never sent")).status is PayloadStatus.KILLED


async def test_acknowledge_names_all_payloads(
    transport: ClientTransport, client: FakeClient
) -> None:
    await transport.acknowledge([3, 5])
    assert client.acknowledged == {3, 5}


async def test_inventory_lists_payloads_with_their_keys(
    transport: ClientTransport, client: FakeClient
) -> None:
    payload_id = await submit(transport)
    entry = InventoryEntry(payload_id, "k", PayloadStatus.PREPARED)
    assert await transport.inventory() == [entry]


@by_http
@pytest.mark.parametrize("status", [404, 405])
async def test_inventory_of_an_older_client_is_not_offered(
    transport: ClientTransport, client: FakeClient, status: int
) -> None:
    client.instead["inventory"] = answering(status)
    with pytest.raises(InventoryNotOffered):
        await transport.inventory()


async def test_load_is_a_number(transport: ClientTransport, client: FakeClient) -> None:
    assert await transport.load() == 12.5
    client.instead["load"] = answering(200, "much")
    with pytest.raises(ClientFailed):
        await transport.load()


async def test_events_arrive_decoded_and_in_order_without_unknown_kinds(
    transport: ClientTransport, client: FakeClient
) -> None:
    payload_id = await submit(transport)
    async with transport.events() as events:
        load = await anext(events)
        assert isinstance(load, LoadEvent)
        assert load.slots == client.slots
        client.push(b"event: later-version\ndata: {}\n\n")
        client.report(payload_id, PayloadStatus.RUNNING)
        client.report(payload_id, PayloadStatus.FAILED, exit_code=3, message="no")
        assert await anext(events) == PayloadEvent(payload_id, PayloadStatus.RUNNING)
        assert await anext(events) == PayloadEvent(payload_id, PayloadStatus.FAILED, 3, "no")


@by_http
@pytest.mark.parametrize(
    "data", [b'event: payload\ndata: {"id": "x"}\n\n', b"data: " + b"x" * (2 << 20)]
)
async def test_events_that_can_not_be_read_are_a_failure_of_the_client(
    transport: ClientTransport, client: FakeClient, data: bytes
) -> None:
    async with transport.events() as events:
        await anext(events)
        client.push(data)
        with pytest.raises(ClientFailed):
            await anext(events)


@pytest.mark.parametrize("tuning", [Tuning(event_stream_timeout_s=0.05)])
async def test_silent_event_stream_is_a_time_out(transport: ClientTransport) -> None:
    # A failure while reading has its final class only when it leaves the block.
    with pytest.raises(ClientTimeout):  # noqa: PT012
        async with transport.events() as events:
            async for _ in events:
                pass


@by_http
@pytest.mark.parametrize("answer", [answering(404), answering(405), answering(200, "[]")])
async def test_client_without_an_event_stream_does_not_offer_events(
    transport: ClientTransport, client: FakeClient, answer: Answer
) -> None:
    client.instead["events"] = answer
    with pytest.raises(EventsNotOffered):
        await open_events(transport)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (answering(400, '{"message": "why"}'), ClientRefused),
        (answering(413, '{"message": "why"}'), ClientRefused),
        (answering(503, '{"message": "why"}'), ClientBusy),
        (answering(507, '{"message": "why"}'), ClientBusy),
        (answering(500, '{"message": "why"}'), ClientFailed),
    ],
    ids=["400", "413", "503", "507", "500"],
)
async def test_error_answer_has_its_class_and_says_which_client_and_why(
    transport: ClientTransport,
    client: FakeClient,
    way: str,
    answer: Answer,
    kind: type[ClientError],
) -> None:
    await check_errors(transport, client, way, answer, kind)


@by_http
@pytest.mark.parametrize("status", [502, 504])
async def test_answer_of_a_proxy_is_not_one_of_the_client(
    transport: ClientTransport, client: FakeClient, way: str, status: int
) -> None:
    await check_errors(transport, client, way, answering(status, "why"), AnswerLost)


@by_http
@pytest.mark.parametrize("status", [403, 421])
async def test_client_that_does_not_admit_the_server_is_not_used_and_says_why(
    transport: ClientTransport, client: FakeClient, way: str, status: int
) -> None:
    answer = answering(status, '{"message": "why"}')
    await check_errors(transport, client, way, answer, AccessRefused)


async def check_errors(
    transport: ClientTransport,
    client: FakeClient,
    way: str,
    answer: Answer,
    kind: type[ClientError],
) -> None:
    """Give ``answer`` to each request, and check the error that is raised."""
    chosen = requests(transport)
    if way in ("link", "tunnel"):
        chosen.pop("events").close()  # it is open
    for name, request in chosen.items():
        client.instead[name] = answer
        with pytest.raises(kind, match=r"why") as caught:
            await request
        assert str(caught.value).startswith(f"{transport.name} ")


@pytest.mark.parametrize("name", ["retrieve", "partial", "kill"])
async def test_request_for_an_unknown_payload_reports_it_lost(
    transport: ClientTransport, name: str
) -> None:
    chosen = requests(transport)
    request = chosen.pop(name)
    for other in chosen.values():
        other.close()
    with pytest.raises(PayloadLost):
        await request


@by_http
async def test_every_request_carries_the_token_and_a_refusal_is_recognised(
    transport: ClientTransport, client: FakeClient
) -> None:
    client.token = TOKEN
    await submit(transport)
    client.token = "another-token-of-32-characters-x"
    for request in requests(transport).values():
        with pytest.raises(TokenRefused):
            await request


async def test_connection_that_breaks_loses_the_answer(
    transport: ClientTransport, client: FakeClient
) -> None:
    for name, request in requests(transport).items():
        client.instead[name] = client.instead["link"] = hang_up
        with pytest.raises(AnswerLost):
            await request


async def test_client_that_is_not_there_is_unreachable(connect: Connect) -> None:
    transport = connect("http://127.0.0.1:9", Tuning())
    for request in requests(transport).values():
        with pytest.raises(ClientUnreachable):
            await request
    await transport.close()


async def test_hung_request_does_not_block_others(
    transport: ClientTransport, client: FakeClient
) -> None:
    client.instead["kill"] = never
    hung = asyncio.create_task(transport.kill(1))
    await asyncio.gather(*(submit(transport, str(n)) for n in range(20)))
    assert not hung.done()
    hung.cancel()
    await asyncio.gather(hung, return_exceptions=True)


async def test_name_identifies_the_client(
    connect: Connect, start_client: StartClient, client: FakeClient
) -> None:
    url = await start_client(client)
    first, second = connect(url, Tuning()), connect(url, Tuning())
    assert first.name == second.name
    for each in (first, second):
        await each.close()


async def test_digest_that_cannot_be_read_is_a_failure_of_the_client(
    transport: ClientTransport, client: FakeClient
) -> None:
    async def garbled(request: web.Request) -> web.Response:
        response = await client.retrieve(request)
        response.headers["Repr-Digest"] = "sha-256=:AAAA:"
        return response

    client.complete(await submit(transport))
    client.instead["retrieve"] = garbled
    with pytest.raises(ClientFailed, match="a digest that can't be read"):
        await transport.retrieve(1, "k", Blocks())


@by_link
@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (answering(503), ClientBusy),
        (answering(502), AnswerLost),
        (answering(500), ClientFailed),
        (answering(421), AccessRefused),
        (hang_up, AnswerLost),
    ],
    ids=["503", "502", "500", "421", "hang up"],
)
async def test_link_that_can_not_be_opened_is_an_error_of_its_class(
    connect: Connect,
    client: FakeClient,
    start_client: StartClient,
    answer: Answer,
    kind: type[ClientError],
) -> None:
    client.offers_link = True
    client.instead["link"] = answer
    transport = connect(await start_client(client), Tuning())
    with pytest.raises(kind):
        await open_events(transport)
    await transport.close()


@by_link
async def test_link_with_another_token_is_refused(
    connect: Connect, client: FakeClient, start_client: StartClient
) -> None:
    client.offers_link = True
    client.token = "another-token-of-32-characters-x"
    transport = connect(await start_client(client), Tuning())
    with pytest.raises(TokenRefused):
        await open_events(transport)
    await transport.close()


@by_link
async def test_small_results_arrive_with_the_end(
    transport: ClientTransport, client: FakeClient
) -> None:
    payload_id = await submit(transport)
    async with transport.events() as events:
        assert isinstance(await anext(events), LoadEvent)
        client.complete(payload_id, out="x")
        ended = await anext(events)
    assert isinstance(ended, EndedPayload)
    assert ended.end == PayloadEvent(payload_id, PayloadStatus.COMPLETED, 0)
    assert (ended.key, ended.results) == ("k", client.results[payload_id])
    assert ended.sha256 == hashlib.sha256(ended.results).digest()
    assert client.requests["retrieve"] == 0


@by_link
async def test_payload_that_has_not_started_is_recalled_once(
    transport: ClientTransport, client: FakeClient
) -> None:
    assert transport.can_recall
    started = await submit(transport, "1")
    await submit(transport, "2")
    client.report(started, PayloadStatus.RUNNING)
    assert not await transport.recall("1")
    assert await transport.recall("2")
    with pytest.raises(PayloadLost):
        await transport.recall("never sent")


@by_link
async def test_many_requests_of_one_moment_are_one_message(
    transport: ClientTransport, client: FakeClient
) -> None:
    await asyncio.gather(*(submit(transport, str(n)) for n in range(20)))
    assert len(client.payloads) == 20
    assert client.links[0].messages == 1


@by_link
@pytest.mark.parametrize("message", [b"", b"\xc0", b"\x90", b"\x91\x91\xa4what", b"\x91" * 5000])
async def test_client_that_sends_what_is_no_item_is_disconnected_with_a_code(
    transport: ClientTransport, client: FakeClient, message: bytes
) -> None:
    with pytest.raises(ClientFailed):  # noqa: PT012 (raised when it leaves the block)
        async with transport.events() as events:
            opened = client.links[-1]
            await opened.send_raw(message)
            async for _ in events:
                pass
    assert await opened.closed() == CloseCode.MALFORMED


@by_link
async def test_request_that_waits_fails_when_the_link_breaks_and_later_ones_go_by_http(
    transport: ClientTransport, client: FakeClient
) -> None:
    client.instead["submit"] = never
    waiting = asyncio.create_task(submit(transport))
    while not client.requests["submit"]:  # noqa: ASYNC110 (there is no event)
        await asyncio.sleep(0)
    client.links[0].abort()
    with pytest.raises(AnswerLost):
        await waiting
    del client.instead["submit"]
    client.instead["link"] = hang_up
    assert await submit(transport) == 1
    assert not transport.can_recall
