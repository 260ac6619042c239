"""A TCP proxy whose connections break after a chosen number of bytes."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

BLOCK_BYTES = 1 << 16


class BreakingProxy:
    """Proxy of one service.

    Each new connection takes the next number of ``cuts`` and breaks after that many bytes of
    responses. 0 means that the request is forwarded and its response is lost. When ``cuts`` is
    empty, connections do not break.
    """

    def __init__(self, target: str, *cuts: int) -> None:
        parts = urlsplit(target)
        self._target = (parts.hostname, parts.port)
        self.cuts = deque(cuts)
        self.connections = 0
        self.answered_bytes = 0
        self.url = ""
        self._ends: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["BreakingProxy"]:
        """Listen on a free port until the context ends."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = "http://{}:{}".format(*server.sockets[0].getsockname())
        try:
            yield self
        finally:
            server.close()
            for end in self._ends:
                end.transport.abort()
            await asyncio.gather(*self._tasks)
            await server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        cut = self.cuts.popleft() if self.cuts else None
        self.connections += 1
        try:
            source, target = await asyncio.open_connection(*self._target)
        except ConnectionError:
            writer.transport.abort()
            return
        self._ends |= {writer, target}
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._forward(reader, target))
                both.create_task(self._answer(source, writer, cut))
        except* ConnectionError:
            pass
        finally:
            # Reset, not closed in order: a broken response must not look complete.
            for end in (writer, target):
                end.transport.abort()
            self._ends -= {writer, target}
            closed = (writer.wait_closed(), target.wait_closed())
            await asyncio.gather(*closed, return_exceptions=True)

    async def _forward(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while block := await source.read(BLOCK_BYTES):
            target.write(block)
            await target.drain()
        target.write_eof()

    async def _answer(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, cut: int | None
    ) -> None:
        while block := await source.read(BLOCK_BYTES):
            if cut is not None:
                block, cut = block[:cut], cut - len(block)
            target.write(block)
            await target.drain()
            self.answered_bytes += len(block)
            if cut is not None and cut <= 0:
                raise ConnectionResetError("cut by the test")
        target.write_eof()
