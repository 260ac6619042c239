"""Hands what happens on the client to everyone who holds an event stream."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from orchestrator_client.payloads import PayloadRow
from orchestrator_common.models import LoadEvent, PayloadEvent, encode
from orchestrator_common.sse import encode_event
from orchestrator_common.status import PayloadStatus

MAX_BEHIND = 4096


class Subscriber:
    """One event stream. ``next`` gives its events, encoded, in order."""

    def __init__(self) -> None:
        self._events: asyncio.Queue[bytes | None] = asyncio.Queue(MAX_BEHIND + 1)

    def put(self, event: bytes) -> None:
        """Add an event. One who falls too far behind is cut off: it connects again and asks."""
        if self._events.qsize() < MAX_BEHIND:
            self._events.put_nowait(event)
        else:
            self.end()

    def end(self) -> None:
        """End the stream after what is waiting."""
        if not self._events.full():
            self._events.put_nowait(None)

    async def next(self, timeout_s: float) -> bytes | None:
        """The next events; b"" when there was none for ``timeout_s``; None at the end."""
        try:
            async with asyncio.timeout(timeout_s):
                event = await self._events.get()
        except TimeoutError:
            return b""
        if event is None:
            return None
        # All that is there: one write to the connection instead of many.
        events = [event]
        while not self._events.empty():
            event = self._events.get_nowait()
            if event is None:
                self._events.put_nowait(None)
                break
            events.append(event)
        return b"".join(events)


class EventHub:
    """All event streams. A listener of the store."""

    def __init__(self) -> None:
        self._subscribers: set[Subscriber] = set()
        self._closed = False
        self._load: bytes | None = None

    @property
    def open_streams(self) -> int:
        """How many streams there are now."""
        return len(self._subscribers)

    def publish_payload(self, row: PayloadRow) -> None:
        """A payload has a new state; that it was taken in, its submitter is told by the answer."""
        if row.status is PayloadStatus.PREPARED:
            return
        self._publish(
            encode_event(
                "payload", encode(PayloadEvent(row.id, row.status, row.exit_code, row.message))
            )
        )

    def publish_load(self, load: LoadEvent) -> None:
        """There is a new reading of the load."""
        self._load = encode_event("load", encode(load))
        self._publish(self._load)

    @contextmanager
    def subscribed(self) -> Iterator[Subscriber]:
        """Follow the events; the last reading of the load comes first."""
        subscriber = Subscriber()
        if self._load is not None:
            subscriber.put(self._load)
        self._subscribers.add(subscriber)
        if self._closed:
            subscriber.end()
        try:
            yield subscriber
        finally:
            self._subscribers.discard(subscriber)

    @property
    def followed(self) -> bool:
        """Whether anybody holds a stream."""
        return bool(self._subscribers)

    def close(self) -> None:
        """End every stream, present or to come: the client stops."""
        self._closed = True
        for subscriber in self._subscribers:
            subscriber.end()

    def _publish(self, event: bytes) -> None:
        for subscriber in self._subscribers:
            subscriber.put(event)
