"""One stream of a tunnel, as a transport of asyncio: any protocol works on it unchanged."""

import asyncio
import logging
from collections import deque
from typing import Any, Protocol

from job_orchestrator.common.protocol.tunnel import (
    BLOCK_BYTES,
    WINDOW_BYTES,
    Frame,
    MalformedMessage,
    encode_credit,
    encode_frame,
)

logger = logging.getLogger(__name__)

HIGH_WATER_BYTES = 256 << 10
"""Bytes that wait to be sent above which the protocol is asked to write no more."""

LOW_WATER_BYTES = 64 << 10

GRANT_BYTES = WINDOW_BYTES // 4
"""Processed bytes for which the sender gets credit in one frame."""


class Carrier(Protocol):
    """Carries the frames of streams: the tunnel."""

    def send_frame(self, frame: bytes) -> None:
        """Queue a frame that is not data. It overtakes the data of all streams."""

    def has_data(self, stream: "StreamTransport") -> None:
        """Note that a stream can send data, or its end."""

    def forget(self, stream: "StreamTransport") -> None:
        """Drop a stream that has ended."""


class StreamTransport(asyncio.Transport):
    """Bytes from and to one protocol, with flow control in both directions.

    At most ``WINDOW_BYTES`` of a stream are on their way. So a protocol that reads slowly stops its
    own stream only, and never the others.
    """

    def __init__(
        self,
        carrier: Carrier,
        number: int,
        protocol: asyncio.BaseProtocol,
        peer: str,
    ) -> None:
        super().__init__({"peername": (peer, 0)})
        self.number = number
        self._carrier = carrier
        self._loop = asyncio.get_running_loop()
        self._protocol: Any = protocol
        self._outgoing: deque[bytes] = deque()
        self._outgoing_bytes = 0
        self._credit = WINDOW_BYTES
        self._writing_paused = False
        self._incoming: deque[bytes] = deque()
        self._incoming_bytes = 0
        self._ungranted = 0
        self._reading_paused = False
        self._closing = False
        self._peer_closed = False
        self._lost = False

    # The interface for protocols, as described in the documentation of asyncio.

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol."""
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Replace the protocol."""
        self._protocol = protocol

    def is_closing(self) -> bool:
        """Return whether nothing more can be written."""
        return self._closing

    def is_reading(self) -> bool:
        """Return whether the protocol gets data."""
        return not self._reading_paused and not self._closing

    def pause_reading(self) -> None:
        """Give the protocol no data. The sender stops when its window is used up."""
        self._reading_paused = True

    def resume_reading(self) -> None:
        """Give the protocol data again, from the next pass of the event loop on."""
        if self._reading_paused:
            self._reading_paused = False
            self._loop.call_soon(self._deliver)

    def get_write_buffer_size(self) -> int:
        """Return the number of bytes that wait to be sent."""
        return self._outgoing_bytes

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return the limits between which the protocol may write."""
        return LOW_WATER_BYTES, HIGH_WATER_BYTES

    def can_write_eof(self) -> bool:
        """Return False: a stream ends in both directions."""
        return False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Queue data. It is dropped if the stream has ended."""
        if self._closing or not data:
            return
        self._outgoing.append(bytes(data))
        self._outgoing_bytes += len(data)
        if self._credit > 0:
            self._carrier.has_data(self)
        if self._outgoing_bytes > HIGH_WATER_BYTES and not self._writing_paused:
            self._writing_paused = True
            self._protocol.pause_writing()

    def writelines(self, list_of_data: Any) -> None:
        """Queue several pieces of data."""
        self.write(b"".join(list_of_data))

    def close(self) -> None:
        """End the stream when all data is sent."""
        if self._closing:
            return
        self._closing = True
        if not self._outgoing:
            self._finish(Frame.CLOSE)

    def abort(self) -> None:
        """End the stream immediately, without what was not sent yet."""
        if not self._lost:
            self._finish(Frame.RESET)

    # The interface for the tunnel.

    def take_block(self) -> bytes:
        """Return the next data that may be sent, as one block; empty if there is none."""
        most = min(self._credit, BLOCK_BYTES)
        taken: list[bytes] = []
        size = 0
        while self._outgoing and size < most:
            piece = self._outgoing.popleft()
            if len(piece) > most - size:
                self._outgoing.appendleft(piece[most - size :])
                piece = piece[: most - size]
            taken.append(piece)
            size += len(piece)
        self._credit -= size
        self._outgoing_bytes -= size
        if self._closing and not self._outgoing and not self._lost:
            # The frame with this block is queued first.
            self._loop.call_soon(self._finish, Frame.CLOSE)
        return taken[0] if len(taken) == 1 else b"".join(taken)

    @property
    def can_send(self) -> bool:
        """True if there is data that may be sent."""
        return bool(self._outgoing) and self._credit > 0

    def after_sending(self) -> None:
        """Let the protocol write again if little waits to be sent."""
        if self._writing_paused and self._outgoing_bytes <= LOW_WATER_BYTES and not self._lost:
            self._writing_paused = False
            self._protocol.resume_writing()

    def receive(self, data: bytes) -> None:
        """Take data of the peer. Raises ``MalformedMessage`` if it is more than the window."""
        if self._closing:
            return
        if self._incoming_bytes + self._ungranted + len(data) > WINDOW_BYTES:
            raise MalformedMessage(f"stream {self.number} has more data than was allowed")
        self._incoming.append(data)
        self._incoming_bytes += len(data)
        self._deliver()

    def receive_credit(self, count: int) -> None:
        """Allow so many more bytes. Raises ``MalformedMessage`` if that exceeds the window."""
        self._credit += count
        if self._credit > WINDOW_BYTES:
            raise MalformedMessage(f"stream {self.number} was given more credit than it used")
        if self._outgoing:
            self._carrier.has_data(self)

    def receive_close(self) -> None:
        """Take the orderly end of the stream: what has arrived is delivered first."""
        self._peer_closed = True
        self._deliver()

    def lose(self, error: Exception | None) -> None:
        """End the stream because its peer, or the tunnel, has ended it."""
        if self._lost:
            return
        self._lost = self._closing = True
        self._outgoing.clear()
        self._incoming.clear()
        self._outgoing_bytes = self._incoming_bytes = 0
        self._carrier.forget(self)
        self._loop.call_soon(self._protocol.connection_lost, error)

    def _deliver(self) -> None:
        while self._incoming and not self._reading_paused and not self._closing:
            data = self._incoming.popleft()
            self._incoming_bytes -= len(data)
            self._ungranted += len(data)
            try:
                self._protocol.data_received(data)
            except Exception:
                logger.exception("A protocol failed on stream %d", self.number)
                self.abort()
                return
        if self._ungranted >= GRANT_BYTES and not self._closing:
            self._carrier.send_frame(encode_credit(self.number, self._ungranted))
            self._ungranted = 0
        if self._peer_closed and not self._incoming and not self._lost:
            self._protocol.eof_received()
            self.lose(None)

    def _finish(self, kind: Frame) -> None:
        if not self._lost:
            self._carrier.send_frame(encode_frame(kind, self.number))
            self.lose(None)
