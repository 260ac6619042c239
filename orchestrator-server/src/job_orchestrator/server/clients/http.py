"""Typed calls to one jo-client. Every failure is one of the ``ClientError`` kinds."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

import aiohttp
import msgspec

from job_orchestrator.common.messages import MalformedMessage, Payload, decode_payload
from job_orchestrator.common.protocol.headers import IDEMPOTENCY_KEY, TIME_LIMIT
from job_orchestrator.common.protocol.multipart_writer import FormBody
from job_orchestrator.common.protocol.sse import CONTENT_TYPE, Event, read_events
from job_orchestrator.server.clients.http_connection import (
    ANSWER_TIMEOUT_S,
    BLOCK_BYTES,
    ClientConnection,
    EventsNotOffered,
)
from job_orchestrator.server.errors import AnswerLost, ClientFailed, ClientTimeout, PayloadLost
from job_orchestrator.server.model import ClientUrls

PACKING_TIMEOUT_S = 300.0
"""A client packs the output of a running payload before its answer begins."""

QUIET_S = 60.0
"""A followed script that says nothing for so long is asked for anew: its client may be gone."""

MAX_JSON_BYTES = 64 << 20
"""Older clients echo the uploaded files in their payload, as arrays of numbers."""

JSON_TIMEOUT_S = 120.0
"""For the whole of such an answer, which may come byte by byte and never be silent."""

SLOW_S = 60.0
MIN_RATE = 1000
"""Bytes that must come in a second on average, once results have been coming for ``SLOW_S``."""

SILENCE_S = 20.0
"""An event stream that says nothing for so long is dead: a load event is due every 5 s."""


class Sink(Protocol):
    """Where a ZIP goes."""

    async def receive(self, blocks: AsyncIterator[bytes]) -> int:
        """Take the whole of it, and say how many bytes; it is an error if ``blocks`` raises."""


class ClientApi:
    """The calls to one client. ``str`` of it names the client in logs and messages."""

    def __init__(self, urls: ClientUrls, token: str | None = None) -> None:
        self.urls = urls
        self._connection = ClientConnection(urls, token)
        self._request = self._connection.request

    def __str__(self) -> str:
        return str(self._connection)

    async def close(self) -> None:
        """End all connections."""
        await self._connection.close()

    async def submit(
        self, body: FormBody, key: str, *, time_limit_s: float | None = None
    ) -> Payload:
        """Hand over a job's files. A repeat with the same ``key`` gets the same payload.

        The client ends what runs for longer than ``time_limit_s``; older ones don't. An answer that
        can't be understood, or that only a proxy before the client gives, is ``AnswerLost``: the
        client may have the job.
        """
        headers = {**body.headers, IDEMPOTENCY_KEY: key}
        if time_limit_s is not None:
            headers[TIME_LIMIT] = f"{time_limit_s:.3f}"
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
            echoed = response.headers.get(IDEMPOTENCY_KEY)
            if echoed is not None and echoed != key:
                raise PayloadLost(f"{self} has another job's payload under the id {dest_id}")
            if response.content_type != "application/zip":
                return await self._payload(response)
            return await sink.receive(self._large_blocks(response))

    async def retrieve_partial(self, dest_id: int, sink: Sink) -> int:
        """Give ``sink`` what there is of a payload's output, whatever its state; how many bytes."""
        async with self._partial(dest_id) as response:
            return await sink.receive(self._large_blocks(response))

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
        async with self._request(
            "POST", self.urls.terminate, headers={IDEMPOTENCY_KEY: key}
        ) as answer:
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

    async def _payload(self, response: aiohttp.ClientResponse) -> Payload:
        body = bytearray()
        async with asyncio.timeout(JSON_TIMEOUT_S):
            async for block in response.content.iter_any():
                body += block
                if len(body) > MAX_JSON_BYTES:
                    raise ClientFailed(f"{self} answered more than {MAX_JSON_BYTES} bytes of JSON")
        try:
            return decode_payload(bytes(body))
        except MalformedMessage as error:
            raise ClientFailed(f"{self} answered with {error}") from error

    async def _large_blocks(self, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        """The body in blocks of at least ``BLOCK_BYTES``, but for the last one.

        Raises ``ClientTimeout`` if it comes too slowly.
        """
        loop = asyncio.get_running_loop()
        began, received = loop.time(), 0
        gathered: list[bytes] = []
        size = 0
        async for block in response.content.iter_any():
            gathered.append(block)
            size += len(block)
            received += len(block)
            took_s = loop.time() - began
            if took_s > SLOW_S and received < took_s * MIN_RATE:
                raise ClientTimeout(f"{self} sends its results too slowly")
            if size >= BLOCK_BYTES:
                yield b"".join(gathered)
                gathered, size = [], 0
        if gathered:
            yield b"".join(gathered)
