"""The link of jo-client, as a server uses it: over a real WebSocket."""

import asyncio
import contextlib
import hashlib
import io
import math
import zipfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TypeVar

import aiohttp
import pytest

from job_orchestrator.client import keys
from job_orchestrator.common.protocol import link
from job_orchestrator.common.protocol.small_files import SmallFile, encode_files
from job_orchestrator.common.status import PayloadStatus
from job_orchestrator.common.web import link_socket
from running_client import Client, StartClient

INSTALLATION = "abc"
KEY = f"uuid.1.{INSTALLATION}-nonce"
HELLO = link.ServerHello(link.PROTOCOL, "0", INSTALLATION, 64_000)

T = TypeVar("T", bound=link.Answer | link.Report)


def files(script: str, **others: bytes) -> bytes:
    """Return a block with run.sh and other files."""
    named = {"run.sh": script.encode(), **others}
    return encode_files([SmallFile(name, content) for name, content in named.items()])


class Server:
    """The server's side of an open link. ``seen`` are all items that have arrived."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, hello: link.ClientHello) -> None:
        self.hello = hello
        self.seen: list[link.Answer | link.Report] = []
        self._socket = socket

    async def send(self, *requests: link.Request) -> None:
        """Send requests as one message."""
        await self.send_raw(link.join_items([link.encode_item(each) for each in requests]))

    async def send_raw(self, message: bytes) -> None:
        """Send any bytes as a message."""
        await self._socket.send_bytes(message)

    async def until(self, kind: type[T], matches: Callable[[T], bool] = lambda _: True) -> T:
        """Return the first item of a kind, received before or now."""
        async with asyncio.timeout(60):
            while True:
                for item in self.seen:
                    if isinstance(item, kind) and matches(item):
                        return item
                self.seen += link.decode_from_client(await self._socket.receive_bytes())

    async def assign(self, number: int, script: str, key: str = KEY) -> link.PayloadState:
        """Assign a payload, and return the answer."""
        await self.send(link.Assign(number, key, files(script)))
        return await self.until(link.PayloadState, lambda state: state.number == number)

    async def refusal(self, request: link.Request) -> link.Refused:
        """Send a request that is refused, and return the answer."""
        await self.send(request)
        return await self.until(link.Refused, lambda each: each.number == request.number)

    async def closed(self) -> int | None:
        """Wait for the end of the link, and return the code of the client."""
        async with asyncio.timeout(60):
            while (message := await self._socket.receive()).type is aiohttp.WSMsgType.BINARY:
                pass
        return message.data if message.type is aiohttp.WSMsgType.CLOSE else None


@asynccontextmanager
async def linked(client: Client) -> AsyncIterator[Server]:
    """Open a link and exchange the hellos."""
    async with client.http.ws_connect("/link") as socket:
        await socket.send_bytes(link.join_items([link.encode_item(HELLO)]))
        yield Server(socket, link.decode_client_hello(await socket.receive_bytes()))


async def test_hello_has_version_and_slots(client: Client) -> None:
    async with linked(client) as server:
        assert server.hello.protocol == link.PROTOCOL
        assert server.hello.load.slots == 4


async def test_payload_runs_and_its_results_come_with_the_end(client: Client) -> None:
    async with linked(client) as server:
        state = await server.assign(1, "cat a > b; exit 0\n")
        assert (state.status, state.number) == (PayloadStatus.PREPARED, 1)
        assert (await server.until(link.Started)).id == state.id
        ended = await server.until(link.Ended)
        assert (ended.id, ended.key, ended.exit_code) == (state.id, KEY, 0)
        assert ended.status is PayloadStatus.COMPLETED
        assert ended.results is not None
        assert ended.sha256 == hashlib.sha256(ended.results).digest()
        assert "b" in zipfile.ZipFile(io.BytesIO(ended.results)).namelist()


async def test_results_come_by_http_as_well(client: Client) -> None:
    async with linked(client) as server:
        state = await server.assign(1, "exit 0\n")
        ended = await server.until(link.Ended)
        archive = await client.archive(state.id, "retrieve")
        assert archive.namelist() == zipfile.ZipFile(io.BytesIO(ended.results or b"")).namelist()


async def test_large_results_and_those_of_other_servers_are_not_in_the_link(
    client: Client,
) -> None:
    async with linked(client) as server:
        await server.assign(1, "head -c 100000 /dev/urandom > x\n", KEY)
        await server.assign(2, "exit 0\n", "uuid.1.other-nonce")
        for key in (KEY, "uuid.1.other-nonce"):
            ended = await server.until(link.Ended, lambda each, key=key: each.key == key)  # type: ignore[misc]
            assert ended.status is PayloadStatus.COMPLETED
            assert ended.results is None


async def test_repeated_assign_runs_once(client: Client) -> None:
    async with linked(client) as server:
        await server.send(
            link.Assign(1, KEY, files("exit 0\n")), link.Assign(2, KEY, files("exit 0\n"))
        )
        states = [
            await server.until(link.PayloadState, lambda each, n=n: each.number == n)  # type: ignore[misc]
            for n in (1, 2)
        ]
        assert states[0].id == states[1].id
        await server.until(link.Ended)
    async with linked(client) as server:
        assert (await server.assign(3, "exit 0\n")).id == states[0].id


async def test_selection_of_results_is_that_of_the_fields(client: Client) -> None:
    async with linked(client) as server:
        block = files("echo 1 > out.csv; echo 1 > other\n")
        await server.send(link.Assign(1, KEY, block, [("outputs", "*.csv")]))
        ended = await server.until(link.Ended)
        # Patterns are not matched in the event loop, so the results are in a file and are fetched.
        assert ended.results is None
        async with client.http.get(f"/retrieve/{ended.id}") as response:
            names = zipfile.ZipFile(io.BytesIO(await response.read())).namelist()
        assert "out.csv" in names
        assert "other" not in names


async def test_time_limit_of_the_assignment_ends_the_script(client: Client) -> None:
    async with linked(client) as server:
        await server.send(link.Assign(1, KEY, files("sleep 1000\n"), [], 0.1))
        ended = await server.until(link.Ended)
        assert ended.status is PayloadStatus.FAILED
        assert "Time limit" in ended.message


@pytest.mark.parametrize(
    ("block", "fields"),
    [
        (b"", []),
        (b"\x90", []),
        (encode_files([SmallFile("../x", b"")]), []),
        (encode_files([SmallFile("a", b"")]), []),
        (encode_files([SmallFile("run.sh", b"exit 0\n")]), [("outputs", "/etc/*")]),
    ],
    ids=["no block", "no files", "unsafe path", "no run.sh", "bad selection"],
)
async def test_assign_that_is_not_acceptable_is_refused_and_leaves_no_files(
    client: Client, block: bytes, fields: list[tuple[str, str]]
) -> None:
    async with linked(client) as server:
        refused = await server.refusal(link.Assign(1, KEY, block, fields))
        assert refused.reason is link.Refusal.REFUSED
        assert refused.message
    assert list(client.data.iterdir()) == []


@pytest.mark.parametrize(
    "request_",
    [
        link.Assign(1, "a\nb", b""),
        link.Assign(1, "a\n", b""),
        link.KillKey(1, "\x1b[31m"),
        link.Recall(1, "schl\u00fcssel"),
        link.Assign(1, KEY, b"", [], math.inf),
        link.Assign(1, KEY, b"", [], 1e308),
        link.Assign(1, KEY, b"", [("outputs", "x")] * 1000),
        link.Assign(1, KEY, b"", [("outputs", "x" * 100_000)]),
    ],
    ids=str,
)
async def test_values_that_no_server_sends_end_the_link(
    client: Client, request_: link.Request
) -> None:
    async with linked(client) as server:
        await server.send(request_)
        assert await server.closed() == link.CloseCode.MALFORMED


async def test_as_many_payloads_as_are_allowed_are_acknowledged_at_once(client: Client) -> None:
    async with linked(client) as server:
        state = await server.assign(1, "exit 0\n")
        await server.until(link.Ended)
        await server.send(link.Acknowledge(2, [*range(1, link.MAX_ACKNOWLEDGED), state.id]))
        await server.until(link.Acknowledged)
        assert (await client.get(state.id))["status"] == "Cleaned"


async def test_client_that_drains_is_busy(client: Client) -> None:
    client.app[keys.INTAKE].open = False
    async with linked(client) as server:
        refused = await server.refusal(link.Assign(1, KEY, files("exit 0\n")))
        assert refused.reason is link.Refusal.BUSY


async def test_kill_ends_the_payload_by_id_or_key(client: Client) -> None:
    async with linked(client) as server:
        first = await server.assign(1, "sleep 1000\n", "a")
        await server.assign(2, "sleep 1000\n", "b")
        await server.send(link.Kill(3, first.id), link.KillKey(4, "b"), link.KillKey(5, "later"))
        for number in (3, 4, 5):
            state = await server.until(link.PayloadState, lambda each, n=number: each.number == n)  # type: ignore[misc]
            assert state.status is PayloadStatus.KILLED
        assert client.processes() == []
        assert (await server.assign(6, "exit 0\n", "later")).status is PayloadStatus.KILLED
        refused = await server.refusal(link.Kill(7, 12345))
        assert refused.reason is link.Refusal.LOST


async def test_payload_that_has_not_started_is_recalled_and_never_runs(
    start_client: StartClient,
) -> None:
    client = await start_client(SLOTS="1")
    async with linked(client) as server:
        await server.assign(1, "sleep 1000\n", "a")
        await server.until(link.Started)
        waits = await server.assign(2, "exit 0\n", "b")
        await server.send(link.Recall(3, "a"), link.Recall(4, "b"), link.Recall(5, "b"))
        ended = [
            (await server.until(link.Recalled, lambda each, n=n: each.number == n)).ended  # type: ignore[misc]
            for n in (3, 4, 5)
        ]
        assert ended == [False, True, True]
        assert (await server.refusal(link.Recall(6, "c"))).reason is link.Refusal.LOST
        refused = await server.refusal(link.Assign(7, "b", files("exit 0\n")))
        assert refused.reason is link.Refusal.GIVEN_BACK
        async with client.http.get(f"/retrieve/{waits.id}") as response:
            assert (response.status, (await response.json())["code"]) == (404, "given-back")
        await client.eventually(lambda: len(list(client.data.iterdir())) == 1)


async def test_acknowledge_removes_the_files_and_is_confirmed(client: Client) -> None:
    async with linked(client) as server:
        state = await server.assign(1, "exit 0\n")
        await server.until(link.Ended)
        await server.send(link.Acknowledge(2, [state.id, 77]))
        await server.until(link.Acknowledged)
    assert list(client.data.iterdir()) == []


async def test_inventory_comes_in_parts(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "INVENTORY_BATCH", 2)
    async with linked(client) as server:
        await server.send(link.ListPayloads(1))
        assert (await server.until(link.Inventory)).entries == []
        for number in range(2, 7):
            await server.assign(number, "exit 0\n", str(number))
        await server.send(link.ListPayloads(9))
        await server.until(link.Inventory, lambda each: each.number == 9 and each.last)
        parts = [e for e in server.seen if isinstance(e, link.Inventory) and e.number == 9]
        assert [len(part.entries) for part in parts] == [2, 2, 1]
        assert [part.last for part in parts] == [False, False, True]
        assert {entry.key for part in parts for entry in part.entries} == set("23456")


@pytest.mark.parametrize(
    "message",
    [b"", b"\xc1", b"\x90", b"\x91\x90", b"\x91\x92\xa4load\x01", b"\x91" * 10_000, b"\xdd" * 9],
)
async def test_what_is_no_request_closes_the_link_with_a_code(
    client: Client, message: bytes
) -> None:
    async with linked(client) as server:
        await server.send_raw(message)
        assert await server.closed() == link.CloseCode.MALFORMED
    async with linked(client) as server:
        await server.assign(1, "exit 0\n")


async def test_first_message_that_is_no_hello_closes_the_link_with_a_code(client: Client) -> None:
    async with client.http.ws_connect("/link") as socket:
        await socket.send_bytes(link.join_items([link.encode_item(link.ListPayloads(1))]))
        message = await socket.receive()
        assert message.type is aiohttp.WSMsgType.CLOSE
        assert socket.close_code == link.CloseCode.MALFORMED


async def test_message_larger_than_allowed_closes_the_link(client: Client) -> None:
    async with linked(client) as server:
        # The connection may end before the whole message is sent.
        with contextlib.suppress(ConnectionError):
            await server.send_raw(bytes(link.MAX_MESSAGE_BYTES + 1))
        await server.closed()
    assert not client.app[keys.EVENTS].followed


async def test_server_that_does_not_read_is_disconnected_and_grows_no_memory(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = client.app[keys.EVENTS]
    sockets: list[link_socket.LinkSocket] = []

    class Noted(link_socket.LinkSocket):
        def __init__(self, socket: link_socket.WebSocket) -> None:
            super().__init__(socket, max_queued_bytes=1 << 20)
            sockets.append(self)

    monkeypatch.setattr("job_orchestrator.client.web.link.LinkSocket", Noted)
    async with linked(client) as server:
        state = await server.assign(1, "sleep 1000\n")
        row = await client.app[keys.STORE].get(state.id)
        async with asyncio.timeout(60):
            while hub.open_streams:
                for _ in range(100):
                    hub.on_payload_changed(replace(row, message="x" * 60_000, packing=True))
                assert sockets[0].queued_bytes <= 1 << 20
                await asyncio.sleep(0)


async def test_link_ends_after_what_is_queued_when_the_client_stops(client: Client) -> None:
    async with linked(client) as server:
        state = await server.assign(1, "exit 0\n")
        await server.until(link.Ended)
        await server.send(link.Acknowledge(2, [state.id]))
        await server.until(link.Acknowledged)
        await client.app.shutdown()
        assert await server.closed() == aiohttp.WSCloseCode.OK


async def test_link_requires_the_token(start_client: StartClient) -> None:
    client = await start_client(CLIENT_TOKEN="a-token-of-32-characters-or-more")
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await client.http.ws_connect("/link")
    assert refused.value.status == 401


async def test_trap_69_page_of_another_origin_opens_no_link(client: Client) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await client.http.ws_connect("/link", origin="https://evil.example")
    assert refused.value.status == 403
