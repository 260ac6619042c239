"""Typed calls to one jo-client. Every failure is one of the ``ClientError`` kinds.

Two HTTP sessions a client, for the life of the process: connections are pooled, and a client that
hangs can't use up the connections to another one. What users read for as long as they like has a
session of its own: it can't use up the connections by which jobs are run.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from http import HTTPStatus
from typing import Protocol

import aiohttp
import msgspec
from aiohttp import hdrs

from orchestrator_common.bearer import authorization
from orchestrator_common.errors import in_plain_words
from orchestrator_common.form_body import FormBody
from orchestrator_common.log_context import REQUEST_ID_HEADER, request_id
from orchestrator_common.models import MalformedMessage, Payload, decode_payload
from orchestrator_common.sse import CONTENT_TYPE, Event, read_events
from orchestrator_server.errors import (
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
from orchestrator_server.settings import ClientUrls

CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 30.0
PACKING_TIMEOUT_S = 300.0
"""A client packs the output of a running payload before its answer begins."""

QUIET_S = 60.0
"""A followed script that says nothing for so long is asked for anew: its client may be gone."""

MAX_CONNECTIONS = 64
"""Of the server's own calls, to one client."""

MAX_READERS = 512
"""Connections through which users read from one client; it takes 1000 from one address."""

MAX_JSON_BYTES = 64 << 20
"""Older clients echo the uploaded files in their payload, as arrays of numbers."""

SILENCE_S = 20.0
"""An event stream that says nothing for so long is dead: a load event is due every 5 s."""

BLOCK_BYTES = 1 << 20
KEY_HEADER = "Idempotency-Key"
TIME_LIMIT_HEADER = "Time-Limit"

_PROXY_FAILED = (HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT)
_BUSY = (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.INSUFFICIENT_STORAGE)


class _ErrorBody(msgspec.Struct):
    message: str


class EventsNotOffered(ClientError):
    """The client is of a kind that has no event stream: it must be polled."""


class Sink(Protocol):
    """Where a ZIP goes."""

    async def take(self, blocks: AsyncIterator[bytes]) -> int:
        """Take the whole of it, and say how many bytes; it is an error if ``blocks`` raises."""


class ClientApi:
    """The calls to one client. ``str`` of it names the client in logs and messages."""

    def __init__(self, urls: ClientUrls, token: str | None = None) -> None:
        self.urls = urls
        self._token = token
        self._session = _session(token, MAX_CONNECTIONS)
        self._readers = _session(token, MAX_READERS)

    def __str__(self) -> str:
        return self.urls.upload

    async def close(self) -> None:
        """End all connections."""
        await self._session.close()
        await self._readers.close()

    async def submit(
        self, body: FormBody, key: str, *, time_limit_s: float | None = None
    ) -> Payload:
        """Hand over a job's files. A repeat with the same ``key`` gets the same payload.

        The client ends what runs for longer than ``time_limit_s``; older ones don't. An answer that
        can't be understood, or that only a proxy before the client gives, is ``AnswerLost``: the
        client may have the job.
        """
        headers = {**body.headers, KEY_HEADER: key}
        if time_limit_s is not None:
            headers[TIME_LIMIT_HEADER] = f"{time_limit_s:.3f}"
        async with self._request("POST", self.urls.upload, headers=headers, body=body) as response:
            try:
                return await self._payload(response)
            except ClientFailed as error:
                raise AnswerLost(str(error)) from error

    async def retrieve(self, dest_id: int, key: str, sink: Sink) -> Payload | int:
        """Ask for the results of a payload.

        A number: ``sink`` has taken them, all that the client announced, so many bytes. Otherwise
        the payload, of which there are none yet. Raises ``PayloadLost`` also if the client's
        payload of this id was submitted with another key.
        """
        async with self._request("GET", f"{self.urls.download}/{dest_id}") as response:
            echoed = response.headers.get(KEY_HEADER)
            if echoed is not None and echoed != key:
                raise PayloadLost(f"{self} has another job's payload under the id {dest_id}")
            if response.content_type != "application/zip":
                return await self._payload(response)
            return await sink.take(_large_blocks(response))

    async def retrieve_partial(self, dest_id: int, sink: Sink) -> int:
        """Give ``sink`` what there is of a payload's output, whatever its state; how many bytes."""
        async with self._partial(dest_id) as response:
            return await sink.take(_large_blocks(response))

    def open_partial(self, dest_id: int) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """Stream what there is of a payload's output to a user as a ZIP, whatever its state."""
        return self._partial(dest_id, for_reader=True)

    @asynccontextmanager
    async def _partial(
        self, dest_id: int, *, for_reader: bool = False
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        async with self._request(
            "GET",
            f"{self.urls.partial}/{dest_id}",
            silence_s=PACKING_TIMEOUT_S,
            for_reader=for_reader,
        ) as response:
            if response.content_type != "application/zip":
                raise ClientFailed(f"{self} answered {response.content_type} instead of a ZIP")
            yield response

    @asynccontextmanager
    async def open_logs(
        self, dest_id: int, stream: str, offset: int, *, follow: bool
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Stream what a payload's script says to a user, from byte ``offset`` on.

        With ``follow`` it goes on until the payload has ended, and is a ``ClientTimeout`` after
        ``QUIET_S`` without a byte.
        """
        url = f"{self.urls.logs}/{dest_id}?stream={stream}&offset={offset}&follow={int(follow)}"
        silence_s = QUIET_S if follow else ANSWER_TIMEOUT_S
        async with self._request("GET", url, silence_s=silence_s, for_reader=True) as response:
            yield response

    async def kill(self, dest_id: int) -> Payload | None:
        """End a payload; on return nothing of it runs any more.

        Returns the payload as it then is: one that had already ended stays what it was. None if the
        client doesn't tell (older ones answer otherwise).
        """
        async with self._request("POST", f"{self.urls.terminate}/{dest_id}") as response:
            try:
                return await self._payload(response)
            except ClientFailed:
                return None

    async def kill_key(self, key: str) -> Payload:
        """End the payload that was, or will be, submitted with ``key``: it never runs again.

        Raises ``PayloadLost`` if the client knows no such request (older ones).
        """
        async with self._request("POST", self.urls.terminate, headers={KEY_HEADER: key}) as answer:
            return await self._payload(answer)

    async def discard(self, dest_ids: Sequence[int]) -> None:
        """Tell the client that the results of these are here and it may remove its copy."""
        ids = ",".join(str(dest_id) for dest_id in dest_ids)
        async with self._request("DELETE", f"{self.urls.download}?ids={ids}"):
            pass

    async def load(self) -> float:
        """CPU use of the client's machine, per cent."""
        async with self._request("GET", self.urls.load) as response:
            try:
                return msgspec.json.decode(await response.content.read(100), type=float)
            except msgspec.MsgspecError as error:
                raise ClientFailed(f"{self} answered /load with no number: {error}") from error

    @asynccontextmanager
    async def events(self) -> AsyncIterator[AsyncIterator[Event]]:
        """Open the event stream; it raises ``ClientError`` when it breaks or falls silent.

        Raises ``EventsNotOffered``.
        """
        async with self._request("GET", self.urls.events, silence_s=SILENCE_S) as response:
            if response.content_type != CONTENT_TYPE:
                raise EventsNotOffered(f"{self} answers /events with {response.content_type}")
            yield read_events(response.content.iter_any())

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        url: str,
        *,
        headers: dict[str, str] | None = None,
        body: FormBody | None = None,
        silence_s: float = ANSWER_TIMEOUT_S,
        for_reader: bool = False,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request and yield a good answer; the only place that knows aiohttp's errors."""
        sent = False
        if (known := request_id()) is not None:
            headers = {**(headers or {}), REQUEST_ID_HEADER: known}
        try:
            async with asyncio.timeout(None) as stalled:
                data: bytes | AsyncIterator[bytes] | None = None
                if body is not None:
                    data = body.content or self._watched(body, stalled)
                    stalled.reschedule(asyncio.get_running_loop().time() + ANSWER_TIMEOUT_S)
                session = self._readers if for_reader else self._session
                async with session.request(
                    method,
                    url,
                    headers=headers,
                    data=data,
                    timeout=aiohttp.ClientTimeout(
                        total=None,
                        # Beside the connection itself, a wait until another reader has ended.
                        connect=ANSWER_TIMEOUT_S if for_reader else None,
                        sock_connect=CONNECT_TIMEOUT_S,
                        sock_read=silence_s,
                    ),
                    allow_redirects=False,
                ) as response:
                    stalled.reschedule(None)
                    sent = True
                    with _told_of_the_end(response):
                        await self._check(response, url)
                        yield response
        except aiohttp.ClientConnectorError as error:
            reason = in_plain_words(error.os_error)
            raise ClientUnreachable(f"{self} can't be reached: {reason}") from error
        except TimeoutError as error:
            raise self._timeout(sent, error) from error
        except (aiohttp.ClientError, ConnectionError) as error:
            raise AnswerLost(f"{self} broke the connection: {error}") from error

    def _timeout(self, sent: bool, error: Exception) -> ClientError:
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return ClientUnreachable(f"{self} can't be reached: no connection in time")
        doing = "sending its answer" if sent else "reading or answering"
        return ClientTimeout(f"{self} stopped {doing}")

    async def _watched(self, body: FormBody, stalled: asyncio.Timeout) -> AsyncIterator[bytes]:
        """The body, the time-out moved on at each block: a client that doesn't read is hung."""
        loop = asyncio.get_running_loop()
        async for block in body:
            stalled.reschedule(loop.time() + ANSWER_TIMEOUT_S)
            yield block

    async def _check(self, response: aiohttp.ClientResponse, url: str) -> None:
        if response.status == HTTPStatus.OK:
            return
        if url == self.urls.events and response.status in (404, 405):
            raise EventsNotOffered(f"{self} has no /events")
        if response.status == HTTPStatus.UNAUTHORIZED:
            why = "differs" if self._token else "is not set here"
            raise TokenRefused(f"{self} refused the token: CLIENT_TOKEN {why}")
        reason = await _reason(response)
        said = f"{self} answered {response.status}: {reason}"
        if response.status == HTTPStatus.NOT_FOUND and response.method in ("GET", "POST"):
            raise PayloadLost(said) if url != self.urls.upload else ClientFailed(said)
        if response.status in _BUSY:
            raise ClientBusy(said)
        if response.status in _PROXY_FAILED:
            raise AnswerLost(said)
        if response.status in (HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE):
            raise ClientRefused(said)
        raise ClientFailed(said)

    async def _payload(self, response: aiohttp.ClientResponse) -> Payload:
        body = bytearray()
        async for block in response.content.iter_any():
            body += block
            if len(body) > MAX_JSON_BYTES:
                raise ClientFailed(f"{self} answered more than {MAX_JSON_BYTES} bytes of JSON")
        try:
            return decode_payload(bytes(body))
        except MalformedMessage as error:
            raise ClientFailed(f"{self} answered with {error}") from error


def _session(token: str | None, max_connections: int) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        headers={hdrs.AUTHORIZATION: authorization(token)} if token else None,
        connector=aiohttp.TCPConnector(limit=max_connections),
        # Clients set no cookies; looking for some takes its time with every request.
        cookie_jar=aiohttp.DummyCookieJar(),
        read_bufsize=BLOCK_BYTES,
        # Results are files: they are stored as they come, never decoded on the way.
        auto_decompress=False,
    )


@contextmanager
def _told_of_the_end(response: aiohttp.ClientResponse) -> Iterator[None]:
    """Let whoever reads the body be told when its connection is closed.

    aiohttp tells, but not when it closed the connection itself because the body turned into what is
    no HTTP: then it also gives up its own time-out, and the reader waits for ever.
    """
    connection, content = response.connection, response.content
    protocol = connection.protocol if connection is not None else None
    closed = protocol.closed if protocol is not None else None

    def tell(_: "asyncio.Future[None]") -> None:
        if not content.is_eof() and content.exception() is None:
            content.set_exception(aiohttp.ClientPayloadError("the body broke off"))

    if closed is None:
        yield
        return
    closed.add_done_callback(tell)
    try:
        yield
    finally:
        closed.remove_done_callback(tell)


async def _large_blocks(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """The body in blocks of at least ``BLOCK_BYTES``, but for the last one."""
    gathered: list[bytes] = []
    size = 0
    async for block in response.content.iter_any():
        gathered.append(block)
        size += len(block)
        if size >= BLOCK_BYTES:
            yield b"".join(gathered)
            gathered, size = [], 0
    if gathered:
        yield b"".join(gathered)


async def _reason(response: aiohttp.ClientResponse) -> str:
    """What an error says: the message of our JSON, else the beginning of the text."""
    body = await response.content.read(4096)
    try:
        return msgspec.json.decode(body, type=_ErrorBody).message
    except msgspec.MsgspecError:
        return body[:200].decode("utf-8", "replace").strip() or response.reason or ""
