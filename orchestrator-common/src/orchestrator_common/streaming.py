"""Answers that go on for long: what a reader who is slow, gone, or silent for long may cost."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Generic, TypeVar

from aiohttp import web

from orchestrator_common.errors import DomainError

logger = logging.getLogger(__name__)

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


async def begun(blocks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """``blocks``, once the first one is there: what is raised before it can still be an answer."""
    first = await anext(blocks, b"")

    async def all_blocks() -> AsyncGenerator[bytes, None]:
        async with aclosing(blocks):
            yield first
            async for block in blocks:
                yield block

    return all_blocks()


async def send(
    request: web.Request, response: web.StreamResponse, blocks: AsyncGenerator[bytes, None]
) -> web.StreamResponse:
    """Answer with ``blocks`` as they come, until they end or the reader is gone or too slow.

    When they break off (a ``DomainError``), so does the answer, for the reader to see.
    """
    await response.prepare(request)
    try:
        async with aclosing(blocks):
            async for block in blocks:
                async with asyncio.timeout(WRITE_TIMEOUT_S) as writing:
                    await response.write(block)
    except ConnectionError:
        pass  # the reader has gone
    except (TimeoutError, DomainError) as error:
        if isinstance(error, TimeoutError) and not writing.expired():
            raise
        logger.info("%s %s broke off: %s", request.method, request.path, error or "too slow")
        if request.transport is not None:
            request.transport.abort()
    return response
