"""Event streams: changes of payloads and readings of the load, for servers that follow them."""

from collections.abc import Iterator
from contextlib import contextmanager

from job_orchestrator.client.model import PayloadRow
from job_orchestrator.common.messages import LoadEvent, PayloadEvent, encode
from job_orchestrator.common.protocol.sse import encode_event
from job_orchestrator.common.runtime.bounded_queue import SubscriberQueue
from job_orchestrator.common.status import PayloadStatus


class EventHub:
    """Hub that passes each event to all open event streams."""

    def __init__(self) -> None:
        self._subscribers: set[SubscriberQueue[bytes]] = set()
        self._closed = False
        self._load: bytes | None = None

    @property
    def open_streams(self) -> int:
        """Number of streams that are open now."""
        return len(self._subscribers)

    def on_payload_changed(self, row: PayloadRow) -> None:
        """Publish the state of a payload. A subscriber of the store.

        Prepared is not published: the answer to the submit reports it.
        """
        if row.status is PayloadStatus.PREPARED:
            return
        self._publish(
            encode_event(
                "payload",
                encode(PayloadEvent(row.id, row.status, row.exit_code, row.message, row.packing)),
            )
        )

    def publish_load(self, load: LoadEvent) -> None:
        """Publish a reading of the load."""
        self._load = encode_event("load", encode(load))
        self._publish(self._load)

    @contextmanager
    def subscribed(self) -> Iterator[SubscriberQueue[bytes]]:
        """Follow the events within the block; the last reading of the load comes first."""
        subscriber = SubscriberQueue[bytes]()
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
        """True if at least one stream is open."""
        return bool(self._subscribers)

    def close(self) -> None:
        """End all streams, and every stream that is opened from now on: the client stops."""
        self._closed = True
        for subscriber in self._subscribers:
            subscriber.end()

    def _publish(self, event: bytes) -> None:
        for subscriber in self._subscribers:
            subscriber.put(event)
