"""The client's end of a tunnel, which passes each stream on to a TCP port, as the client would."""

import asyncio
import contextlib
import socket
from collections.abc import Coroutine
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp import WSMsgType

from job_orchestrator.common.web.tunnel.multiplexer import Multiplexer, TunnelBroken
from job_orchestrator.server.clients.connector import TunnelConnector

MESSAGES_ON_THE_WAY = 4


class MemorySocket:
    """One end of a WebSocket in memory. Few messages fit in, as into the buffers of a network."""

    def __init__(self) -> None:
        self._inbox: asyncio.Queue[aiohttp.WSMessage] = asyncio.Queue(MESSAGES_ON_THE_WAY)
        self.peer = self

    @classmethod
    def pair(cls) -> tuple["MemorySocket", "MemorySocket"]:
        one, other = cls(), cls()
        one.peer, other.peer = other, one
        return one, other

    async def send_bytes(self, data: bytes) -> None:
        await self.peer._inbox.put(aiohttp.WSMessage(WSMsgType.BINARY, data, None))

    async def send_str(self, data: str) -> None:
        await self.peer._inbox.put(aiohttp.WSMessage(WSMsgType.TEXT, data, None))

    async def receive(self) -> aiohttp.WSMessage:
        return await self._inbox.get()

    async def close(self, *, code: int = 1000, message: bytes = b"") -> bool:
        end = aiohttp.WSMessage(WSMsgType.CLOSE, code, message.decode())
        if not self.peer._inbox.full():
            self.peer._inbox.put_nowait(end)
        return True


class _Pipe(asyncio.Protocol):
    """Writes what it receives to another transport."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.other: _Pipe | None = None
        self.early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connect(self, other: "_Pipe") -> None:
        self.other, other.other = other, self
        for data in self.early:
            self.data_received(data)

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self.early.append(data)
        elif self.other.transport is not None:
            self.other.transport.write(data)

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.abort() if exc else self.other.transport.close()


class TunnelPeer:
    """Both ends of a tunnel to the client at a URL; ``connector`` is that of the server."""

    def __init__(self, url: str) -> None:
        self.connector = TunnelConnector()
        self._address = (urlsplit(url).hostname or "", urlsplit(url).port or 80)
        self._tasks: set[asyncio.Task[None]] = set()
        try:
            socket.create_connection(self._address, timeout=5).close()
        except OSError:
            return  # no client is there to dial
        here, there = MemorySocket.pair()
        near_end = Multiplexer(here, peer="client")
        self.connector.on_open(near_end)
        self.far_end = Multiplexer(there, accept=self._accept, peer="server")
        for end in (near_end, self.far_end):
            self._spawn(self._run(end))

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self) -> asyncio.BaseProtocol:
        pipe = _Pipe()
        self._spawn(self._connect(pipe))
        return pipe

    async def _connect(self, pipe: _Pipe) -> None:
        try:
            _, far = await asyncio.get_running_loop().create_connection(_Pipe, *self._address)
        except OSError:
            if pipe.transport is not None:
                pipe.transport.abort()
            return
        pipe.connect(far)

    async def _run(self, end: Multiplexer) -> None:
        with contextlib.suppress(TunnelBroken):
            await end.run()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
