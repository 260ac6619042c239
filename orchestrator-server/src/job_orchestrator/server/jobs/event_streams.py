"""Event streams: changes of jobs, services and clients, pushed to subscribers.

The store numbers every event, so a stream that broke off can be resumed after the last number that
its subscriber received, without a gap and without a repeat. Each event is read from the store once
for all streams, and not at all while there are no streams.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from job_orchestrator.common.messages.encoding import encode
from job_orchestrator.common.protocol.sse import KEEP_ALIVE, encode_event
from job_orchestrator.common.runtime.bounded_queue import SubscriberQueue
from job_orchestrator.common.runtime.loops import Loop
from job_orchestrator.common.status import JobStatus
from job_orchestrator.server.jobs.queries import JobQueries
from job_orchestrator.server.jobs.views import view_of
from job_orchestrator.server.model import Job
from job_orchestrator.server.store.base import JobEvent, JobEvents

KEEP_ALIVE_S = 15.0
WINDOW = 1000
"""Events that are read with one query."""

MAX_REPLAYS = 2
"""Concurrent queries for past events. A subscriber that resumes from long ago reads the whole
history; the limit keeps such subscribers, however many, from occupying the database."""

INTERVAL_S = 1.0
"""Interval at which services and clients are compared with their last published state. Changes of
jobs are published immediately."""

JOB_KIND = "job"


@dataclass(frozen=True)
class Topic:
    """Subject of a stream: one job until it ends, a user's jobs, or everything (both are None).

    With ``details``, reasons are shown as administrators see them.
    """

    job_id: int | None = None
    user_id: int | None = None
    details: bool = False

    def covers(self, job: Job) -> bool:
        """Return whether changes of a job belong to the topic."""
        return self.job_id in (None, job.id) and self.user_id in (None, job.user_id)

    @property
    def is_everything(self) -> bool:
        """True if changes of services and clients belong to the topic too."""
        return self.job_id is None and self.user_id is None


@dataclass(frozen=True)
class Entry:
    """An encoded event. ``number`` is 0 for events of services and clients, which have no history.

    ``is_last`` says that a stream about one job ends with this event.
    """

    number: int
    data: bytes
    is_last: bool = False


@dataclass(eq=False)
class _Stream:
    topic: Topic
    begins_after: int
    entries: SubscriberQueue[Entry] = field(default_factory=SubscriberQueue)


class EventStreams:
    """Registry of the open event streams, with the ``loops`` that feed them.

    ``on_job_changed`` subscribes to the store.
    """

    def __init__(
        self,
        events: JobEvents,
        queries: JobQueries,
        *,
        window: int = WINDOW,
        keep_alive_s: float = KEEP_ALIVE_S,
    ) -> None:
        self._events = events
        self._queries = queries
        self._window = window
        self._keep_alive_s = keep_alive_s
        self._loop = Loop("event streams", self.run_pass, interval_s=INTERVAL_S)
        self.loops = (self._loop, Loop("overview", self.publish_overview, interval_s=INTERVAL_S))
        self._streams: set[_Stream] = set()
        self._read_until = 0
        self._reading = asyncio.Lock()
        self._replays = asyncio.Semaphore(MAX_REPLAYS)
        self._closed = False
        self._published: dict[str, bytes] = {}

    @property
    def open_streams(self) -> int:
        """Number of open streams."""
        return len(self._streams)

    def on_job_changed(self, _: Job) -> None:
        """Publish the change of a job soon."""
        if self._streams:
            self._loop.wake()

    async def run_pass(self) -> None:
        """Read the events since the last pass and publish them to the streams."""
        async with self._reading:
            while self._streams:
                until = await self._events.last_id()
                if until <= self._read_until:
                    return
                events = await self._events.between(self._read_until, until, limit=self._window)
                for event in events:
                    self._publish(event)
                self._read_until = events[-1].id if len(events) == self._window else until

    async def publish_overview(self) -> None:
        """Publish services and clients to the streams about everything, if they have changed."""
        streams = [stream for stream in self._streams if stream.topic.is_everything]
        if not streams:
            self._published.clear()
            return
        for kind, data in (await self._overview()).items():
            if self._published.get(kind) != data:
                self._published[kind] = data
                for stream in streams:
                    stream.entries.put(Entry(0, data))

    async def follow(self, topic: Topic, after: int | None) -> AsyncGenerator[bytes, None]:
        """Yield the blocks of a stream: the events after number ``after``, then those to come.

        The first block is empty; from then on no event is missed. If ``after`` is None, a stream
        about a job begins with the current state of the job, any other stream with the next event.
        A stream about a job ends with the job. Raises ``JobNotFound``.
        """
        async with self._open_stream(topic) as stream:
            yield b""
            seen = stream.begins_after
            if topic.job_id is not None and after is None:
                seen, job = await self._events.present(topic.job_id)
                yield encode_event(
                    JOB_KIND, encode(self._queries.view(job, details=topic.details)), seen
                )
                if job.status.has_ended:
                    return
            elif after is not None:
                # A number beyond the last one is from another database, and means the last one.
                seen = min(after, await self._events.last_id())
                async for entry in self._past(topic, seen, stream.begins_after):
                    yield entry.data
                    if entry.is_last:
                        return
            if topic.is_everything:
                yield b"".join((await self._overview()).values())
            while (entries := await stream.entries.next(self._keep_alive_s)) is not None:
                unseen = [entry for entry in entries if not 0 < entry.number <= seen]
                if unseen or not entries:
                    yield b"".join(entry.data for entry in unseen) or KEEP_ALIVE
                if any(entry.is_last for entry in unseen):
                    return

    async def is_over(self, job_id: int, after: int) -> bool:
        """Return whether a job has ended and has no events after number ``after``.

        Raises ``JobNotFound``.
        """
        last, job = await self._events.present(job_id)
        return job.status.has_ended and last <= after

    def close(self) -> None:
        """End every present and future stream, because the server stops."""
        self._closed = True
        for stream in self._streams:
            stream.entries.end()

    @asynccontextmanager
    async def _open_stream(self, topic: Topic) -> AsyncIterator[_Stream]:
        async with self._reading:
            if not self._streams:
                self._read_until = await self._events.last_id()
            stream = _Stream(topic, self._read_until)
            self._streams.add(stream)
        if self._closed:
            stream.entries.end()
        try:
            yield stream
        finally:
            self._streams.discard(stream)

    def _publish(self, event: JobEvent) -> None:
        entries: dict[bool, Entry] = {}
        for stream in self._streams:
            if stream.topic.covers(event.job):
                details = stream.topic.details
                if details not in entries:
                    entries[details] = self._encoded(event, details=details)
                stream.entries.put(_for_topic(entries[details], stream.topic))

    async def _past(self, topic: Topic, after: int, until: int) -> AsyncIterator[Entry]:
        while after < until:
            if topic.job_id is not None:
                # The events of one job are few.
                events = await self._events.between(after, until, topic.job_id, limit=self._window)
            else:
                async with self._replays:
                    events = await self._events.between(after, until, limit=self._window)
            for event in events:
                if topic.covers(event.job):
                    yield _for_topic(self._encoded(event, details=topic.details), topic)
            after = events[-1].id if len(events) == self._window else until

    async def _overview(self) -> dict[str, bytes]:
        """Return the events of services and clients. Only administrators get them."""
        services = encode(await self._queries.all_services(details=True))
        clients = encode(self._queries.all_clients())
        return {
            "services": encode_event("services", services),
            "clients": encode_event("clients", clients),
        }

    def _encoded(self, event: JobEvent, *, details: bool) -> Entry:
        """Encode the job as it was at the event.

        The event records status and reason. Other fields are taken from the current job, except
        those that are only set later than the event.
        """
        job, has_ended = event.job, event.status.has_ended
        has_started = job.started_at is not None and job.started_at <= event.at
        then = replace(
            job,
            status=event.status,
            message=event.why,
            started_at=job.started_at if has_started else None,
            ended_at=job.ended_at if has_ended else None,
            run_s=job.run_s if has_ended else None,
            exit_code=job.exit_code if has_ended else None,
            has_output=job.has_output and has_ended,
            output_bytes=job.output_bytes if has_ended else None,
        )
        # Why a job can't start is known for the present only.
        show = self._queries.view if job.status is JobStatus.QUEUED else view_of
        data = encode_event(JOB_KIND, encode(show(then, details=details)), event.id)
        return Entry(event.id, data, is_last=has_ended)


def _for_topic(entry: Entry, topic: Topic) -> Entry:
    """Return the entry as a stream needs it: only a stream about one job ends with the job."""
    return replace(entry, is_last=entry.is_last and topic.job_id is not None)
