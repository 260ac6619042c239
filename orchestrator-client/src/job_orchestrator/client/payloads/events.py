"""Events: changes of payloads and readings of the load, for servers that follow them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import msgspec

from job_orchestrator.client.model import PayloadRow
from job_orchestrator.common.messages.encoding import encode
from job_orchestrator.common.messages.payloads import LoadEvent, PayloadEvent
from job_orchestrator.common.protocol.sse import encode_event
from job_orchestrator.common.runtime.bounded_queue import SubscriberQueue
from job_orchestrator.common.status import PayloadStatus

NO_LOAD = LoadEvent(cpu=0.0, memory=0.0, slots=0, running=0, waiting=0)


class Follower(Protocol):
    """A connection of a server that follows the events. Its methods must not block."""

    def on_payload_changed(self, row: PayloadRow) -> None:
        """Receive the state of a payload."""

    def on_load(self, load: LoadEvent) -> None:
        """Receive a reading of the load."""

    def end(self) -> None:
        """End the connection: the client stops."""


class EventHub:
    """Hub that passes each event to all followers. ``load`` is the last reading of the load."""

    def __init__(self) -> None:
        self.load = NO_LOAD
        self._followers: set[Follower] = set()
        self._closed = False

    @property
    def open_streams(self) -> int:
        """Number of followers that are connected now."""
        return len(self._followers)

    @property
    def followed(self) -> bool:
        """True if at least one follower is connected."""
        return bool(self._followers)

    def on_payload_changed(self, row: PayloadRow) -> None:
        """Pass on the state of a payload. A subscriber of the store."""
        for follower in tuple(self._followers):
            follower.on_payload_changed(row)

    def publish_load(self, load: LoadEvent) -> None:
        """Pass on a reading of the load."""
        self.load = load
        for follower in tuple(self._followers):
            follower.on_load(load)

    @contextmanager
    def followed_by(self, follower: Follower) -> Iterator[None]:
        """Pass events to a follower within the block."""
        self._followers.add(follower)
        if self._closed:
            follower.end()
        try:
            yield
        finally:
            self._followers.discard(follower)

    def close(self) -> None:
        """End all followers, and every one that connects from now on: the client stops."""
        self._closed = True
        for follower in tuple(self._followers):
            follower.end()


class EventStream:
    """Follower that encodes events for an event stream of HTTP, into ``backlog``."""

    def __init__(self, load: LoadEvent) -> None:
        """Create the stream; it begins with the last reading of the load."""
        self.backlog = SubscriberQueue[bytes]()
        self.on_load(load)

    def on_payload_changed(self, row: PayloadRow) -> None:
        """See ``Follower``. Prepared is not published: the answer to the submit reports it."""
        if row.reported_status is PayloadStatus.PREPARED:
            return
        run_s = msgspec.UNSET if row.run_s is None else row.run_s
        event = PayloadEvent(
            row.id, row.status, row.exit_code, row.message, row.packing, run_s=run_s
        )
        self.backlog.put(encode_event("payload", encode(event)))

    def on_load(self, load: LoadEvent) -> None:
        """See ``Follower``."""
        self.backlog.put(encode_event("load", encode(load)))

    def end(self) -> None:
        """See ``Follower``."""
        self.backlog.end()
