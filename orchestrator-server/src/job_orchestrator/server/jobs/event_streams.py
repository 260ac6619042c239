"""Streams of events: what happens to jobs, pushed to whoever asks.

The database numbers every change, so a stream that broke off goes on after the number that its
reader saw last, without a gap and without a repeat. What is new is read once for all streams, and
not at all while there are none.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from job_orchestrator.common.messages import encode
from job_orchestrator.common.protocol.sse import KEEP_ALIVE, encode_event
from job_orchestrator.common.runtime.bounded_queue import Backlog
from job_orchestrator.common.runtime.loops import Loop
from job_orchestrator.common.status import FINAL_JOB, JobStatus
from job_orchestrator.server.jobs.queries import Overview
from job_orchestrator.server.jobs.views import view_of
from job_orchestrator.server.model import Job
from job_orchestrator.server.store.base import JobEvent
from job_orchestrator.server.store.sqlite.events import JobEvents

KEEP_ALIVE_S = 15.0
WINDOW = 1000
"""Events that are read at once."""

MAX_REPLAYS = 2
"""Windows of the past that are read at once. Whoever begins a long way back, or often, reads all of
the history, and shares the database with everybody: those wait for so many windows, and no more."""

INTERVAL_S = 1.0
"""Between two looks for changed services and clients; for jobs nobody waits so long."""

JOB_KIND = "job"


@dataclass(frozen=True)
class Topic:
    """What a stream is about: one job until it ends, a user's jobs, or (both None) everything."""

    job_id: int | None = None
    user_id: int | None = None

    def covers(self, job: Job) -> bool:
        """Whether a job is part of it."""
        return self.job_id in (None, job.id) and self.user_id in (None, job.user_id)

    @property
    def everything(self) -> bool:
        """Whether services and clients are part of it too."""
        return self.job_id is None and self.user_id is None


@dataclass(frozen=True)
class Entry:
    """An event as it is sent; number 0 for those that are not of a job and can't be resumed."""

    number: int
    data: bytes
    last: bool = False


@dataclass(eq=False)
class _Stream:
    topic: Topic
    begins_after: int
    backlog: Backlog[Entry] = field(default_factory=Backlog)


class Journal:
    """All event streams, and the ``loops`` that feed them; ``note`` is a listener of the store."""

    def __init__(self, events: JobEvents, overview: Overview) -> None:
        self._events = events
        self._overview = overview
        self._loop = Loop("journal", self.run_pass, interval_s=INTERVAL_S)
        self.loops = (self._loop, Loop("overview", self.show_overview, interval_s=INTERVAL_S))
        self._streams: set[_Stream] = set()
        self._read_until = 0
        self._turn = asyncio.Lock()
        self._replays = asyncio.Semaphore(MAX_REPLAYS)
        self._closed = False
        self._shown: dict[str, bytes] = {}

    @property
    def open_streams(self) -> int:
        """How many streams there are now."""
        return len(self._streams)

    def note(self, _: Job) -> None:
        """A job is new or has changed."""
        if self._streams:
            self._loop.wake()

    async def run_pass(self) -> None:
        """Read what is new and hand it to the streams."""
        async with self._turn:
            while self._streams:
                until = min(self._read_until + WINDOW, await self._events.last_id())
                if until <= self._read_until:
                    return
                for event in await self._events.between(self._read_until, until):
                    self._publish(event)
                self._read_until = until

    async def show_overview(self) -> None:
        """Send services and clients to those who follow everything, if something has changed."""
        streams = [stream for stream in self._streams if stream.topic.everything]
        if not streams:
            self._shown.clear()
            return
        for kind, data in (await self._overview_now()).items():
            if self._shown.get(kind) != data:
                self._shown[kind] = data
                for stream in streams:
                    stream.backlog.put(Entry(0, data))

    async def follow(self, topic: Topic, after: int | None) -> AsyncGenerator[bytes, None]:
        """The blocks of a stream: what came after number ``after``, then what comes.

        The first block is empty: whoever has it misses nothing that happens from then on.
        With None, a job's stream begins with the job as it is now, others with what comes. A job's
        stream ends with the job. Raises ``JobNotFound``.
        """
        async with self._streaming(topic) as stream:
            yield b""
            seen = stream.begins_after
            if topic.job_id is not None and after is None:
                seen, job = await self._events.present(topic.job_id)
                yield encode_event(JOB_KIND, encode(view_of(job)), seen)
                if _has_ended(job.status):
                    return
            elif after is not None:
                # A number that was never given (another database) is taken for the last one.
                seen = min(after, await self._events.last_id())
                async for entry in self._past(topic, seen, stream.begins_after):
                    yield entry.data
                    if entry.last:
                        return
            if topic.everything:
                yield b"".join((await self._overview_now()).values())
            while (entries := await stream.backlog.next(KEEP_ALIVE_S)) is not None:
                new = [entry for entry in entries if not 0 < entry.number <= seen]
                if new or not entries:
                    yield b"".join(entry.data for entry in new) or KEEP_ALIVE
                if any(entry.last for entry in new):
                    return

    async def is_over(self, job_id: int, after: int) -> bool:
        """Whether a job has ended and nothing has happened to it after number ``after``.

        Raises ``JobNotFound``.
        """
        last, job = await self._events.present(job_id)
        return _has_ended(job.status) and last <= after

    def close(self) -> None:
        """End every stream, present or to come: the server stops."""
        self._closed = True
        for stream in self._streams:
            stream.backlog.end()

    @asynccontextmanager
    async def _streaming(self, topic: Topic) -> AsyncIterator[_Stream]:
        async with self._turn:
            if not self._streams:
                self._read_until = await self._events.last_id()
            stream = _Stream(topic, self._read_until)
            self._streams.add(stream)
        if self._closed:
            stream.backlog.end()
        try:
            yield stream
        finally:
            self._streams.discard(stream)

    def _publish(self, event: JobEvent) -> None:
        entry: Entry | None = None
        for stream in self._streams:
            if stream.topic.covers(event.job):
                entry = entry or _entry(event)
                stream.backlog.put(replace(entry, last=entry.last and bool(stream.topic.job_id)))

    async def _past(self, topic: Topic, after: int, until: int) -> AsyncIterator[Entry]:
        while after < until:
            if topic.job_id is not None:
                # The events of one job are few: they need no windows.
                end = until
                events = await self._events.between(after, end, topic.job_id)
            else:
                end = min(after + WINDOW, until)
                async with self._replays:
                    events = await self._events.between(after, end)
            for event in events:
                if topic.covers(event.job):
                    entry = _entry(event)
                    yield replace(entry, last=entry.last and bool(topic.job_id))
            after = end

    async def _overview_now(self) -> dict[str, bytes]:
        services = encode(await self._overview.all_services())
        clients = encode(self._overview.all_clients())
        return {
            "services": encode_event("services", services),
            "clients": encode_event("clients", clients),
        }


def _entry(event: JobEvent) -> Entry:
    """The job as it was at the event, as far as it was noted; the rest is as it is now."""
    job, ended = event.job, _has_ended(event.status)
    started = job.started_at is not None and job.started_at <= event.at
    then = replace(
        job,
        status=event.status,
        message=event.why,
        started_at=job.started_at if started else None,
        ended_at=job.ended_at if ended else None,
        exit_code=job.exit_code if ended else None,
        has_output=job.has_output and ended,
        output_bytes=job.output_bytes if ended else None,
    )
    return Entry(event.id, encode_event(JOB_KIND, encode(view_of(then)), event.id), last=ended)


def _has_ended(status: JobStatus) -> bool:
    return status in FINAL_JOB or status is JobStatus.CLEANED
