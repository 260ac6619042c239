"""The streams of one tunnel: opens and accepts them, and carries their frames."""

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import aiohttp
from aiohttp import WSMsgType

from job_orchestrator.common.errors import DomainError
from job_orchestrator.common.protocol.tunnel import (
    BLOCK_BYTES,
    MAX_STREAMS,
    CloseCode,
    Farewell,
    Frame,
    MalformedMessage,
    decode_count,
    decode_frame,
    decode_text,
    encode_frame,
    encode_text,
)
from job_orchestrator.common.web.link_socket import MAX_REASON_BYTES, WebSocket
from job_orchestrator.common.web.tunnel.stream import StreamTransport

logger = logging.getLogger(__name__)

MAX_CONTROL_FRAMES = 10_000
"""Frames besides data that wait to be sent. A peer that makes this side send more is cut off."""

CLOSE_TIMEOUT_S = 2.0

Accept = Callable[[], asyncio.BaseProtocol]
"""Creates the protocol of a stream that the peer has opened."""


class TunnelBroken(DomainError):
    """The tunnel has ended. ``code`` and message are those of the peer, if it has ended it."""

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.close_code = code


class Multiplexer:
    """Streams over a WebSocket, which has exchanged the first messages already.

    The server opens streams; a client accepts them, with ``accept``. Data of all streams is sent in
    turns of one block, so a large transfer delays the others by a few blocks at most. ``peer``
    names the other side to protocols.
    """

    def __init__(self, socket: WebSocket, *, accept: Accept | None = None, peer: str) -> None:
        self.said_farewell = False
        self._socket = socket
        self._accept = accept
        self._peer = peer
        self._numbers = itertools.count(1)
        self._streams: dict[int, StreamTransport] = {}
        self._control: deque[bytes] = deque()
        self._sending: deque[StreamTransport] = deque()
        self._queued: set[int] = set()
        self._wanted = asyncio.Event()
        self._heard = asyncio.Event()
        self._closing: tuple[int, str] | None = None
        self._must_close = asyncio.Event()
        self._broken = False

    @property
    def is_open(self) -> bool:
        """True until the tunnel breaks or is closed."""
        return not self._broken and self._closing is None

    @property
    def open_streams(self) -> int:
        """Number of streams that have not ended."""
        return len(self._streams)

    def open(self, protocol: asyncio.BaseProtocol) -> StreamTransport:
        """Open a stream for ``protocol``. Raises ``ConnectionError`` if the tunnel has ended."""
        if not self.is_open:
            raise ConnectionResetError("the tunnel has ended")
        number = next(self._numbers)
        self.send_frame(encode_frame(Frame.OPEN, number))
        return self._add(number, protocol)

    async def run(self) -> None:
        """Carry frames until the tunnel ends. Always raises ``TunnelBroken``."""
        tasks = [
            asyncio.create_task(self._receive(), name="tunnel: receive"),
            asyncio.create_task(self._send(), name="tunnel: send"),
            asyncio.create_task(self._must_close.wait(), name="tunnel: close"),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if not self._must_close.is_set():
                # If sending fails, the last messages of the peer may have arrived already.
                await asyncio.wait(tasks[:1], timeout=CLOSE_TIMEOUT_S)
            raise self._end_of(tasks)
        finally:
            self._broken = True
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for stream in list(self._streams.values()):
                stream.lose(ConnectionResetError("the tunnel has ended"))
            await self._close_socket()

    def close(self, code: int, reason: str) -> None:
        """End the tunnel with a code for the peer."""
        self._closing = self._closing or (code, reason)
        self._must_close.set()

    async def say_farewell(self) -> None:
        """Report that this side does not come back, and end the tunnel."""
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._socket.send_str(encode_text(Farewell()))
        except (TimeoutError, ConnectionError, aiohttp.ClientError) as error:
            logger.info("The farewell was not sent: %s", error)
        self.close(aiohttp.WSCloseCode.OK, "")

    async def answers_within(self, timeout_s: float) -> bool:
        """Return whether the peer answers a ping in time. Any message of it is an answer."""
        if not self.is_open:
            return False
        self._heard.clear()
        self.send_frame(encode_frame(Frame.PING, 0))
        try:
            async with asyncio.timeout(timeout_s):
                await self._heard.wait()
        except TimeoutError:
            return False
        return self.is_open

    # The interface for streams (``Carrier``).

    def send_frame(self, frame: bytes) -> None:
        """See ``Carrier.send_frame``."""
        self._control.append(frame)
        if len(self._control) > MAX_CONTROL_FRAMES:
            self.close(CloseCode.MALFORMED, "too many frames wait for a peer that does not read")
        self._wanted.set()

    def has_data(self, stream: StreamTransport) -> None:
        """See ``Carrier.has_data``."""
        if stream.number not in self._queued:
            self._queued.add(stream.number)
            self._sending.append(stream)
            self._wanted.set()

    def forget(self, stream: StreamTransport) -> None:
        """See ``Carrier.forget``."""
        self._streams.pop(stream.number, None)

    def _add(self, number: int, protocol: asyncio.BaseProtocol) -> StreamTransport:
        stream = StreamTransport(self, number, protocol, self._peer)
        self._streams[number] = stream
        protocol.connection_made(stream)
        return stream

    async def _send(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            while self._control or self._sending:
                while self._control:
                    await self._socket.send_bytes(self._control.popleft())
                if self._sending:
                    await self._send_block(self._sending.popleft())

    async def _send_block(self, stream: StreamTransport) -> None:
        self._queued.discard(stream.number)
        block = stream.take_block()
        if block:
            await self._socket.send_bytes(encode_frame(Frame.DATA, stream.number, block))
        stream.after_sending()
        if stream.can_send:
            self.has_data(stream)

    async def _receive(self) -> None:
        while True:
            message = await self._socket.receive()
            self._heard.set()
            if message.type is WSMsgType.BINARY:
                self._on_frame(message.data)
            elif message.type is WSMsgType.TEXT:
                self._on_text(message.data)
            elif message.type is WSMsgType.ERROR:
                raise TunnelBroken(f"the connection failed: {message.data}")
            elif message.type is WSMsgType.CLOSE and message.data:
                raise TunnelBroken(str(message.extra or message.data), int(message.data))
            else:
                raise TunnelBroken("the connection was closed")

    def _on_text(self, text: str) -> None:
        if not isinstance(decode_text(text), Farewell):
            raise MalformedMessage("an unexpected text message")
        self.said_farewell = True

    def _on_frame(self, message: bytes) -> None:
        kind, number, content = decode_frame(message)
        if kind is Frame.OPEN:
            self._on_open(number)
            return
        if kind is Frame.PING:
            self.send_frame(encode_frame(Frame.PONG, 0))
            return
        stream = self._streams.get(number)
        if stream is None:
            return  # it has ended on this side: its last frames are on their way
        match kind:
            case Frame.DATA if len(content) <= BLOCK_BYTES:
                stream.receive(content)
            case Frame.CREDIT:
                stream.receive_credit(decode_count(content))
            case Frame.CLOSE:
                stream.receive_close()
            case Frame.RESET:
                stream.lose(ConnectionResetError("the peer has ended the stream"))
            case _:
                raise MalformedMessage(f"an unexpected frame of {len(content)} bytes")

    def _on_open(self, number: int) -> None:
        if self._accept is None or number in self._streams:
            raise MalformedMessage("a stream that must not be opened")
        if len(self._streams) >= MAX_STREAMS:
            self.send_frame(encode_frame(Frame.RESET, number))
            return
        self._add(number, self._accept())

    def _end_of(self, tasks: "Sequence[asyncio.Task[Any]]") -> TunnelBroken:
        """Return why the tunnel has ended, and set the code for the peer."""
        if self._closing is not None:
            return TunnelBroken(self._closing[1] or "it was closed", self._closing[0])
        for task in tasks:
            error = task.exception() if task.done() and not task.cancelled() else None
            match error:
                case None:
                    continue
                case TunnelBroken():
                    return error
                case MalformedMessage():
                    self._closing = (CloseCode.MALFORMED, str(error))
                    return TunnelBroken(f"the peer sent what is not of the tunnel: {error}")
                case ConnectionError() | aiohttp.ClientError():
                    return TunnelBroken(f"the connection broke: {error}")
                case _:
                    logger.error("The tunnel failed", exc_info=error)
                    return TunnelBroken("an internal error")
        return TunnelBroken("the connection was closed")

    async def _close_socket(self) -> None:
        code, reason = self._closing or (aiohttp.WSCloseCode.OK, "")
        text = reason.encode()[:MAX_REASON_BYTES].decode("utf-8", "ignore").encode()
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._socket.close(code=code, message=text)
        except (TimeoutError, ConnectionError, aiohttp.ClientError) as error:
            logger.debug("The tunnel was not closed in order: %s", error)
