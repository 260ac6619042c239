"""Answers that go on for long: what a reader who is slow, gone, or silent for long may cost."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Generic, TypeVar

from aiohttp import web

T = TypeVar("T")

WRITE_TIMEOUT_S = 20.0
"""How long a reader may take nothing at all before it is cut off."""

MAX_BEHIND = 4096


class Backlog(Generic[T]):
    """What one reader has not been given yet, in order, and bounded."""

    def __init__(self) -> None:
        self._items: asyncio.Queue[T | None] = asyncio.Queue(MAX_BEHIND + 1)

    def put(self, item: T) -> None:
        """Add one. A reader who falls too far behind is cut off: it connects again and asks."""
        if self._items.qsize() < MAX_BEHIND:
            self._items.put_nowait(item)
        else:
            self.end()

    def end(self) -> None:
        """End it after what is waiting."""
        if not self._items.full():
            self._items.put_nowait(None)

    async def next(self, timeout_s: float) -> list[T] | None:
        """All that is there; nothing when nothing came for ``timeout_s``; None at the end."""
        try:
            async with asyncio.timeout(timeout_s):
                item = await self._items.get()
        except TimeoutError:
            return []
        found: list[T] = []
        while item is not None:
            found.append(item)
            if self._items.empty():
                return found
            item = self._items.get_nowait()
        if not found:
            return None
        self._items.put_nowait(None)
        return found


async def send(
    request: web.Request, response: web.StreamResponse, blocks: AsyncGenerator[bytes, None]
) -> web.StreamResponse:
    """Answer with ``blocks`` as they come, until they end or the reader is gone or too slow."""
    await response.prepare(request)
    async with aclosing(blocks):
        async for block in blocks:
            try:
                async with asyncio.timeout(WRITE_TIMEOUT_S):
                    await response.write(block)
            except ConnectionError:
                break  # the reader has gone
            except TimeoutError:
                if request.transport is not None:
                    request.transport.abort()
                break
    return response
