"""HTTP transport to a client that is configured by its URLs."""

import asyncio
import math
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import aiohttp
import msgspec

from job_orchestrator.common.errors import DomainError
from job_orchestrator.common.messages.payloads import InventoryEntry, Payload
from job_orchestrator.common.protocol.decoding import (
    MalformedMessage,
    decode_inventory,
    decode_load_event,
    decode_payload,
    decode_payload_event,
)
from job_orchestrator.common.protocol.digests import MalformedDigest, sha256_of
from job_orchestrator.common.protocol.headers import (
    IDEMPOTENCY_KEY,
    REPR_DIGEST,
    RUN_SECONDS,
    TIME_LIMIT,
)
from job_orchestrator.common.protocol.multipart_writer import FormBody
from job_orchestrator.common.protocol.sse import CONTENT_TYPE, Event, read_events
from job_orchestrator.server.clients.base import (
    BLOCK_BYTES,
    ClientEvent,
    EventsNotOffered,
    OutputStream,
    Receiver,
    SmallInputs,
)
from job_orchestrator.server.clients.http_connection import ANSWER_TIMEOUT_S, ClientConnection
from job_orchestrator.server.errors import (
    AnswerLost,
    ClientFailed,
    ClientTimeout,
    PayloadLost,
)
from job_orchestrator.server.model import ClientUrls, StoredOutput
from job_orchestrator.server.tuning import Tuning

MAX_JSON_BYTES = 64 << 20

ECHO = re.compile(rb"(?:\d{1,3},){256,}")
"""Part of an uploaded file. Older clients answer a submit with its files, as arrays of numbers."""

MIN_RATE = 1000
"""Bytes per second that results must bring on average after ``Tuning.slow_results_after_s``."""

DEFAULTS = Tuning()


class HttpTransport:
    """``ClientTransport`` over the documented HTTP requests. Only it uses the URLs of a client."""

    def __init__(
        self, urls: ClientUrls, connection: ClientConnection, tuning: Tuning = DEFAULTS
    ) -> None:
        self._urls = urls
        self._tuning = tuning
        self._connection = connection
        self._request = connection.request

    @property
    def name(self) -> str:
        """The client's name: its upload URL."""
        return self._urls.name

    async def close(self) -> None:
        """Close all connections."""
        await self._connection.close()

    async def submit(
        self, files: FormBody | SmallInputs, key: str, *, time_limit_s: float | None = None
    ) -> Payload:
        """See ``ClientTransport.submit``. What only a proxy answers is ``AnswerLost`` as well."""
        if isinstance(files, SmallInputs):
            files = files.form()
        headers = {**files.headers, IDEMPOTENCY_KEY: key}
        if time_limit_s is not None:
            headers[TIME_LIMIT] = f"{time_limit_s:.3f}"
        url = self._urls.upload
        async with self._request("POST", url, headers=headers, body=files) as response:
            try:
                return await self._payload(response)
            except ClientFailed as error:
                raise AnswerLost(str(error)) from error

    async def retrieve(
        self, payload_id: int, key: str, receiver: Receiver
    ) -> Payload | StoredOutput:
        """See ``ClientTransport.retrieve``."""
        async with self._request("GET", f"{self._urls.download}/{payload_id}") as response:
            echoed = response.headers.get(IDEMPOTENCY_KEY)
            if echoed is not None and echoed != key:
                raise PayloadLost(
                    f"{self.name} has another job's payload under the id {payload_id}"
                )
            if response.content_type != "application/zip":
                return await self._payload(response)
            output = await receiver.receive(self._large_blocks(response), self._sha256(response))
            return replace(output, run_s=_run_s(response))

    async def retrieve_partial(self, payload_id: int, receiver: Receiver) -> StoredOutput:
        """See ``ClientTransport.retrieve_partial``."""
        async with self._partial(payload_id) as response:
            return await receiver.receive(self._large_blocks(response), self._sha256(response))

    @asynccontextmanager
    async def open_partial(self, payload_id: int) -> AsyncIterator[OutputStream]:
        """See ``ClientTransport.open_partial``."""
        async with self._partial(payload_id, for_reader=True) as response:
            yield OutputStream(
                response.content.iter_any(), response.content_length, self._sha256(response)
            )

    @asynccontextmanager
    async def _partial(
        self, payload_id: int, *, for_reader: bool = False
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        async with self._request(
            "GET",
            f"{self._urls.partial}/{payload_id}",
            silence_s=self._tuning.packing_timeout_s,
            for_reader=for_reader,
        ) as response:
            if response.content_type != "application/zip":
                raise ClientFailed(f"{self.name} answered {response.content_type} instead of a ZIP")
            yield response

    @asynccontextmanager
    async def open_logs(
        self, payload_id: int, stream: str, offset: int, *, follow: bool
    ) -> AsyncIterator[OutputStream]:
        """See ``ClientTransport.open_logs``."""
        query = f"stream={stream}&offset={offset}&follow={int(follow)}"
        silence_s = self._tuning.followed_log_timeout_s if follow else ANSWER_TIMEOUT_S
        async with self._request(
            "GET",
            f"{self._urls.beside('logs')}/{payload_id}?{query}",
            silence_s=silence_s,
            for_reader=True,
        ) as response:
            yield OutputStream(response.content.iter_any())

    async def kill(self, payload_id: int) -> Payload | None:
        """See ``ClientTransport.kill``."""
        async with self._request("POST", f"{self._urls.terminate}/{payload_id}") as response:
            try:
                return await self._payload(response)
            except ClientFailed:
                return None

    async def kill_key(self, key: str) -> Payload:
        """See ``ClientTransport.kill_key``."""
        headers = {IDEMPOTENCY_KEY: key}
        async with self._request("POST", self._urls.terminate, headers=headers) as response:
            return await self._payload(response)

    @property
    def can_recall(self) -> bool:
        """See ``ClientTransport.can_recall``. The documented requests have no such operation."""
        return False

    async def recall(self, key: str) -> bool:
        """See ``ClientTransport.recall``."""
        return False

    async def acknowledge(self, payload_ids: Sequence[int]) -> None:
        """See ``ClientTransport.acknowledge``."""
        ids = ",".join(str(payload_id) for payload_id in payload_ids)
        async with self._request("DELETE", f"{self._urls.download}?ids={ids}"):
            pass

    async def inventory(self) -> Sequence[InventoryEntry]:
        """See ``ClientTransport.inventory``."""
        async with self._request("GET", self._urls.beside("payloads")) as response:
            body = await self._json(response)
        try:
            return decode_inventory(body)
        except MalformedMessage as error:
            raise ClientFailed(f"{self.name} answered with {error}") from error

    async def load(self) -> float:
        """See ``ClientTransport.load``."""
        async with self._request("GET", self._urls.beside("load")) as response:
            try:
                return msgspec.json.decode(await response.content.read(100), type=float)
            except msgspec.MsgspecError as error:
                raise ClientFailed(
                    f"{self.name} did not answer /load with a number: {error}"
                ) from error

    @asynccontextmanager
    async def events(self) -> AsyncIterator[AsyncIterator[ClientEvent]]:
        """See ``ClientTransport.events``."""
        silence_s = self._tuning.event_stream_timeout_s
        async with self._request(
            "GET", self._urls.beside("events"), silence_s=silence_s
        ) as response:
            if response.content_type != CONTENT_TYPE:
                raise EventsNotOffered(f"{self.name} answers /events with {response.content_type}")
            yield _decoded(read_events(response.content.iter_any()))

    async def _payload(self, response: aiohttp.ClientResponse) -> Payload:
        body = await self._json(response, ECHO)
        try:
            return decode_payload(body)
        except MalformedMessage as error:
            raise ClientFailed(f"{self.name} answered with {error}") from error

    def _sha256(self, response: aiohttp.ClientResponse) -> bytes | None:
        try:
            return sha256_of(response.headers.get(REPR_DIGEST))
        except MalformedDigest as error:
            raise ClientFailed(f"{self.name} sent a digest that can't be read: {error}") from error

    async def _json(
        self, response: aiohttp.ClientResponse, left_out: re.Pattern[bytes] | None = None
    ) -> bytes:
        """Read JSON, without the matches of ``left_out``: it must be valid without them, too."""
        body = bytearray()
        async with asyncio.timeout(self._tuning.json_timeout_s):
            async for block in response.content.iter_any():
                body += block if left_out is None else left_out.sub(b"", block)
                if len(body) > MAX_JSON_BYTES:
                    raise ClientFailed(
                        f"{self.name} answered more than {MAX_JSON_BYTES} bytes of JSON"
                    )
        return bytes(body)

    async def _large_blocks(self, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        """Yield the body in blocks of at least ``BLOCK_BYTES``; only the last may be smaller.

        Raises ``ClientTimeout`` if the body arrives too slowly.
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
            if took_s > self._tuning.slow_results_after_s and received < took_s * MIN_RATE:
                raise ClientTimeout(f"{self.name} sends its results too slowly")
            if size >= BLOCK_BYTES:
                yield b"".join(gathered)
                gathered, size = [], 0
        if gathered:
            yield b"".join(gathered)


async def _decoded(events: AsyncIterator[Event]) -> AsyncIterator[ClientEvent]:
    """Decode the events of known kinds; later versions of jo-client may send others."""
    try:
        async for event in events:
            if event.kind == "payload":
                yield decode_payload_event(event.data)
            elif event.kind == "load":
                yield decode_load_event(event.data)
    except DomainError as error:
        raise ClientFailed(str(error)) from error


def _run_s(response: aiohttp.ClientResponse) -> float | None:
    """Return how long the script ran; None if the client does not say so, or no time."""
    try:
        run_s = float(response.headers.get(RUN_SECONDS, ""))
    except ValueError:
        return None
    return run_s if math.isfinite(run_s) and run_s >= 0 else None
