"""A TCP proxy that simulates network faults between the services.

Each direction has its own ``LinkConditions``. Changes also affect connections that are already
open.
"""

import asyncio
import contextlib
import socket
from dataclasses import dataclass, field
from urllib.parse import urlsplit

BLOCK_BYTES = 1 << 16


@dataclass
class LinkConditions:
    """Faults that are applied to the bytes of one direction.

    ``delay_s`` delays each block. ``cut_after`` breaks a connection, once, after that many more
    bytes of all connections together. ``garbage`` is sent, once, instead of the next block. While
    ``flowing`` is not set, all blocks are held; they arrive when it is set again, as with TCP.
    """

    delay_s: float = 0.0
    cut_after: int | None = None
    garbage: bytes | None = None
    flowing: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.flowing.set()

    async def pass_through(self, block: bytes) -> tuple[bytes, bool]:
        """Return the block to forward, and whether the connection stays open."""
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        await self.flowing.wait()
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
    """Proxy of one service on a free port. Use ``url`` instead of the service's URL."""

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self._target = (parts.hostname, parts.port)
        self._server: asyncio.Server | None = None
        # Bound but never listening: it reserves the port while connections are refused.
        self._reserved = _bound(0)
        self._port: int = self._reserved.getsockname()[1]
        self._connections: set[asyncio.Task[None]] = set()
        self.requests = LinkConditions()
        self.responses = LinkConditions()

    @property
    def url(self) -> str:
        """URL of the proxy; also valid while connections are refused."""
        return f"http://127.0.0.1:{self._port}"

    async def open(self) -> "Proxy":
        """Accept connections. The port is always the same."""
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, sock=_bound(self._port))
        return self

    async def refuse(self) -> None:
        """Break all connections and refuse new ones until ``open`` is called."""
        if self._server is not None:
            self._server.close()
            self._server = None
        await self.cut()

    async def cut(self) -> None:
        """Break the open connections."""
        connections = list(self._connections)
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    def pause(self) -> None:
        """Hold the data of both directions; connections are still accepted."""
        self.requests.flowing.clear()
        self.responses.flowing.clear()

    def resume(self) -> None:
        """Forward the held data, then everything else."""
        self.requests.flowing.set()
        self.responses.flowing.set()

    async def close(self) -> None:
        """Close all connections and release the port."""
        await self.refuse()
        self._reserved.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._connect(reader, writer)
        except asyncio.CancelledError:
            pass  # asyncio would report a cancelled handler as an error
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            upstream = await asyncio.open_connection(*self._target)
        except OSError:
            return
        try:
            pumps = [
                asyncio.ensure_future(_pump(reader, upstream[1], self.requests)),
                asyncio.ensure_future(_pump(upstream[0], writer, self.responses)),
            ]
            try:
                # In HTTP, when one side closes, the other side has nothing more to send.
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        finally:
            # Closed in order, not reset: the last block must arrive.
            with contextlib.suppress(OSError, RuntimeError):
                writer.close()
            upstream[1].transport.abort()


def _bound(port: int) -> socket.socket:
    """Return a socket bound to ``port``, which the other sockets of the proxy may share."""
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    bound.bind(("127.0.0.1", port))
    return bound


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, conditions: LinkConditions
) -> None:
    with contextlib.suppress(OSError):
        while block := await reader.read(BLOCK_BYTES):
            block, survives = await conditions.pass_through(block)
            writer.write(block)
            await writer.drain()
            if not survives:
                return
