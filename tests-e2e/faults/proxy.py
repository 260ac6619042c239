"""TCP proxy between the services that simulates faults of a network.

Each direction has a separate ``Weather``. Changes also affect open connections.
"""

import asyncio
import contextlib
import socket
from dataclasses import dataclass, field
from urllib.parse import urlsplit

BLOCK_BYTES = 1 << 16


@dataclass
class Weather:
    """Faults of one direction.

    ``delay_s`` delays each block. ``cut_after`` breaks a connection, once, after so many more bytes
    of all connections together. ``garbage`` is sent once instead of the next block. ``hole`` holds
    everything back until it is filled; the held bytes arrive then, as with TCP.
    """

    delay_s: float = 0.0
    cut_after: int | None = None
    garbage: bytes | None = None
    hole: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.hole.set()

    async def pass_through(self, block: bytes) -> tuple[bytes, bool]:
        """Apply the faults to a block; return the bytes to send, and whether to stay connected."""
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        await self.hole.wait()
        if self.garbage is not None:
            block, self.garbage = self.garbage, None
            return block, False
        if self.cut_after is not None:
            left = self.cut_after - len(block)
            if left < 0:
                block, self.cut_after = block[: self.cut_after], None
                return block, False
            self.cut_after = left
        return block, True


class Proxy:
    """Listens on a free port for one service. ``url`` replaces that of the service."""

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self._target = (parts.hostname, parts.port)
        self._server: asyncio.Server | None = None
        # Bound but not listening: it keeps the port while connections are refused.
        self._reserved = _bound(0)
        self._port: int = self._reserved.getsockname()[1]
        self._connections: set[asyncio.Task[None]] = set()
        self.requests = Weather()
        self.answers = Weather()

    @property
    def url(self) -> str:
        """URL where the proxy listens, or did."""
        return f"http://127.0.0.1:{self._port}"

    async def open(self) -> "Proxy":
        """Accept connections, always on the same port."""
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, sock=_bound(self._port))
        return self

    async def refuse(self) -> None:
        """Break all connections and refuse new ones, until it is opened again."""
        if self._server is not None:
            self._server.close()
            self._server = None
        await self.cut()

    async def cut(self) -> None:
        """Break the connections that are open."""
        connections = list(self._connections)
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    def hold(self) -> None:
        """Hold everything back, in both directions: connections are accepted and stay silent."""
        self.requests.hole.clear()
        self.answers.hole.clear()

    def release(self) -> None:
        """Let everything pass again, the held bytes first."""
        self.requests.hole.set()
        self.answers.hole.set()

    async def close(self) -> None:
        """Close the proxy."""
        await self.refuse()
        self._reserved.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._connect(reader, writer)
        except asyncio.CancelledError:
            pass  # asyncio would report a cancelled handler as a failure
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there = await asyncio.open_connection(*self._target)
        except OSError:
            return
        try:
            pumps = [
                asyncio.ensure_future(_pump(reader, there[1], self.requests)),
                asyncio.ensure_future(_pump(there[0], writer, self.answers)),
            ]
            try:
                # When one side closes, the other one sends nothing more in HTTP.
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        finally:
            # An orderly end, not a reset: the last bytes must arrive.
            with contextlib.suppress(OSError, RuntimeError):
                writer.close()
            there[1].transport.abort()


def _bound(port: int) -> socket.socket:
    """Bind a socket to a port that only sockets of this kind may share."""
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    bound.bind(("127.0.0.1", port))
    return bound


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, weather: Weather
) -> None:
    with contextlib.suppress(OSError):
        while block := await reader.read(BLOCK_BYTES):
            block, survives = await weather.pass_through(block)
            writer.write(block)
            await writer.drain()
            if not survives:
                return
