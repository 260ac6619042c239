"""One side of a link: sends and receives its messages over a WebSocket, with bounds.

Items that are queued in one pass of the event loop leave as one message, with those that were held
back before them. The queue is bounded in bytes, so that a peer that does not read grows no memory.
"""

import asyncio
import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol

import aiohttp
from aiohttp import WSMsgType

from job_orchestrator.common.errors import DomainError
from job_orchestrator.common.protocol.link import (
    BATCH_BYTES,
    MAX_BATCH,
    MAX_ITEM_BYTES,
    CloseCode,
    MalformedItem,
    join_items,
)

MAX_QUEUED_BYTES = 16 << 20
"""Limit of the items that wait to be sent."""

CLOSE_TIMEOUT_S = 1.0
RESCHEDULE_S = 0.5
MAX_REASON_BYTES = 120
"""A WebSocket allows 123 bytes for the reason of a close."""


class LinkBroken(DomainError):
    """The link ended. The message says why. ``silent``: the peer sent nothing for too long."""

    def __init__(self, message: str, *, silent: bool = False) -> None:
        super().__init__(message)
        self.silent = silent


class QueueFull(DomainError):
    """The peer reads too slowly: the items that wait for it have reached the limit."""


class WebSocket(Protocol):
    """Common operations of the WebSockets of aiohttp's server and client."""

    async def send_bytes(self, data: bytes) -> None:
        """Send a binary message; waits while the peer does not read."""

    async def send_str(self, data: str) -> None:
        """Send a text message."""

    async def receive(self) -> aiohttp.WSMessage:
        """Wait for the next message."""

    async def close(self, *, code: int = ..., message: bytes = ...) -> bool:
        """Close the connection in order."""


class LinkSocket:
    """Queue of items and reader of messages of one link, until it breaks.

    ``sent`` counts the items that were handed to the WebSocket; the ordinal of an item is the
    number of items before it. So an item was not sent if its ordinal is not below ``sent``.
    """

    def __init__(self, socket: WebSocket, *, max_queued_bytes: int = MAX_QUEUED_BYTES) -> None:
        self.sent = 0
        self.queued_bytes = 0
        self._socket = socket
        self._max_queued_bytes = max_queued_bytes
        self._queue: deque[bytes] = deque()
        self._filled = asyncio.Event()
        self._emptied = asyncio.Event()
        self._closing: tuple[int, str] | None = None
        self._ending = self._finishing = False
        self._deadline: asyncio.Timeout | None = None

    def put(self, item: bytes, *, hold_s: float = 0.0) -> int:
        """Queue an encoded item and return its ordinal. Raises ``QueueFull``.

        It leaves with the next item, at the latest after ``hold_s``.
        """
        if len(item) > MAX_ITEM_BYTES:
            raise QueueFull(f"an item of {len(item)} bytes is too large for a link")
        if self.queued_bytes + len(item) > self._max_queued_bytes:
            raise QueueFull(f"{self.queued_bytes} bytes wait for a peer that does not read")
        ordinal = self.sent + len(self._queue)
        self._queue.append(item)
        self.queued_bytes += len(item)
        if hold_s:
            asyncio.get_running_loop().call_later(hold_s, self._end_hold, ordinal)
        else:
            self._filled.set()
        return ordinal

    async def room(self, size: int) -> None:
        """Wait until an item of ``size`` bytes can be queued."""
        while self._queue and self.queued_bytes + size > self._max_queued_bytes:
            self._emptied.clear()
            await self._emptied.wait()

    def withdraw(self, ordinal: int) -> bool:
        """Drop an item that is not wanted any more; returns False if it was sent."""
        if ordinal < self.sent:
            return False
        position = ordinal - self.sent
        if position < len(self._queue):
            self.queued_bytes -= len(self._queue[position])
            self._queue[position] = b""
            self._emptied.set()
        return True

    async def send_now(self, item: bytes) -> None:
        """Send an item as a message of its own, before all others: the hello."""
        with _as_broken():
            await self._socket.send_bytes(join_items([item]))

    async def receive_one(self) -> bytes:
        """Wait for one message: the hello. Raises ``LinkBroken``."""
        with _as_broken():
            return _content_of(await self._socket.receive())

    async def run(
        self, received: Callable[[bytes], None], *, silence_s: float | None = None
    ) -> None:
        """Send and receive until the link breaks; ``received`` gets each message.

        Always ends with ``LinkBroken``, also if nothing arrives for ``silence_s``, or with the
        ``MalformedItem`` that ``received`` raises.
        """
        sending = asyncio.create_task(self._send(), name="link: send")
        try:
            await self._receive(received, silence_s)
        except MalformedItem as error:
            self.close(CloseCode.MALFORMED, str(error))
            raise
        finally:
            if not self._finishing:
                sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            await self.finish()

    def close(self, code: int, reason: str) -> None:
        """Set the code and the reason with which ``finish`` closes the connection."""
        self._closing = self._closing or (code, reason)

    def end(self) -> None:
        """End the link in order: what is queued is sent, then the connection is closed."""
        self._ending = True
        self._filled.set()

    def break_off(self, code: int, reason: str) -> None:
        """End the link without waiting for a peer that does not read."""
        self.close(code, reason)
        if self._deadline is not None:
            self._deadline.reschedule(asyncio.get_running_loop().time())

    async def finish(self) -> None:
        """Close the connection; cut it if the peer does not answer soon."""
        code, reason = self._closing or (aiohttp.WSCloseCode.OK, "")
        text = reason.encode("utf-8", "replace")[:MAX_REASON_BYTES]
        with contextlib.suppress(TimeoutError, ConnectionError, aiohttp.ClientError):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                message = text.decode("utf-8", "ignore").encode()
                await self._socket.close(code=code, message=message)

    async def _receive(self, received: Callable[[bytes], None], silence_s: float | None) -> None:
        clock = asyncio.get_running_loop().time
        try:
            async with asyncio.timeout(silence_s) as self._deadline:
                heard_at = clock()
                with _as_broken():
                    while True:
                        message = await self._socket.receive()
                        if silence_s is not None and (now := clock()) - heard_at > RESCHEDULE_S:
                            heard_at = now
                            self._deadline.reschedule(now + silence_s)
                        received(_content_of(message))
                        if self._closing is not None:
                            raise LinkBroken(self._closing[1])
        except TimeoutError as error:
            if self._closing is not None:
                raise LinkBroken(self._closing[1]) from error
            raise LinkBroken(f"nothing arrived for {silence_s:g} s", silent=True) from error

    def _end_hold(self, ordinal: int) -> None:
        if ordinal >= self.sent:
            self._filled.set()

    async def _send(self) -> None:
        while not self._ending:
            await self._filled.wait()
            self._filled.clear()
            while self._queue:
                if batch := self._next_batch():
                    await self._socket.send_bytes(join_items(batch))
                self._emptied.set()
        self._finishing = True
        await self.finish()

    def _next_batch(self) -> list[bytes]:
        """Take the items of one message off the queue; they count as sent from now on."""
        size, count = 0, 0
        for item in itertools.islice(self._queue, MAX_BATCH):
            if count and size + len(item) > BATCH_BYTES:
                break
            size += len(item)
            count += 1
        batch = [self._queue.popleft() for _ in range(count)]
        self.sent += count
        self.queued_bytes -= size
        return [item for item in batch if item]


def _content_of(message: aiohttp.WSMessage) -> bytes:
    """Return the content of a message. Raises ``LinkBroken`` at the end of the connection."""
    if message.type is WSMsgType.BINARY:
        return bytes(message.data)
    if message.type is WSMsgType.TEXT:
        raise MalformedItem("not a binary message")
    if message.type is WSMsgType.ERROR:
        raise LinkBroken(f"the connection failed: {message.data}")
    if message.type is WSMsgType.CLOSE and message.data not in (None, aiohttp.WSCloseCode.OK):
        raise LinkBroken(f"the peer closed the link: {message.data} {message.extra}".rstrip())
    raise LinkBroken("the peer closed the link")


@contextlib.contextmanager
def _as_broken() -> Iterator[None]:
    try:
        yield
    except (ConnectionError, aiohttp.ClientError) as error:
        raise LinkBroken(f"the connection broke: {error}") from error
