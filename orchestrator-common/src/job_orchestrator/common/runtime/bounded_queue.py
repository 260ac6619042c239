"""Bounded queue of events for one subscriber."""

import asyncio
from typing import Generic, TypeVar

T = TypeVar("T")

MAX_QUEUED = 4096


class SubscriberQueue(Generic[T]):
    """Items that one subscriber has not received yet, in order; at most ``MAX_QUEUED``."""

    def __init__(self) -> None:
        self._items: asyncio.Queue[T | None] = asyncio.Queue(MAX_QUEUED + 1)

    def put(self, item: T) -> None:
        """Add an item. If the queue is full, end it: the subscriber has to reconnect."""
        if self._items.qsize() < MAX_QUEUED:
            self._items.put_nowait(item)
        else:
            self.end()

    def end(self) -> None:
        """End the queue after the items in it."""
        if not self._items.full():
            self._items.put_nowait(None)

    async def next(self, timeout_s: float) -> list[T] | None:
        """Wait for items and return all.

        Returns an empty list if none came within ``timeout_s``, and None at the end of the queue.
        """
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
