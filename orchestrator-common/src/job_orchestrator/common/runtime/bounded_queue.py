"""What is on its way to one reader."""

import asyncio
from typing import Generic, TypeVar

T = TypeVar("T")

MAX_QUEUED = 4096


class SubscriberQueue(Generic[T]):
    """What one reader has not been given yet, in order, and bounded."""

    def __init__(self) -> None:
        self._items: asyncio.Queue[T | None] = asyncio.Queue(MAX_QUEUED + 1)

    def put(self, item: T) -> None:
        """Add one. A reader who falls too far behind is cut off: it connects again and asks."""
        if self._items.qsize() < MAX_QUEUED:
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
