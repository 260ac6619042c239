"""Event streams: complete, resumable without gap or repeat, bounded, and closed at a stop."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from fake_client import FakeClient
from job_orchestrator.common.protocol.sse import Event, read_events
from job_orchestrator.common.runtime.bounded_queue import MAX_QUEUED, SubscriberQueue
from job_orchestrator.common.status import JobStatus, PayloadStatus
from job_orchestrator.common.web import streaming
from job_orchestrator.server import keys
from job_orchestrator.server.jobs.event_streams import MAX_REPLAYS, EventStreams, Topic
from running_server import Server

ALL_STATES = ["Queued", "Processing", "Submitted", "Running", "Completed"]


@contextlib.asynccontextmanager
async def stream(
    server: Server, path: str, last: str | None = None
) -> AsyncIterator[AsyncIterator[Event]]:
    headers = {} if last is None else {"Last-Event-ID": last}
    async with asyncio.timeout(60), server.http.get(path, headers=headers) as response:
        assert response.status == 200, await response.text()
        assert response.content_type == "text/event-stream"
        assert response.headers["Cache-Control"] == "no-cache"
        yield read_events(response.content.iter_any())


async def take(events: AsyncIterator[Event], number: int) -> list[Event]:
    return [await anext(events) for _ in range(number)]


def streams_of(server: Server, **options: Any) -> EventStreams:
    """Create event streams on the store of a server, with other bounds."""
    queries = server.app[keys.QUERIES]
    return EventStreams(queries.store.events, queries, **options)


def states(events: list[Event]) -> list[str]:
    return [json.loads(event.data)["status"] for event in events if event.kind == "job"]


async def run(server: Server, client: FakeClient, **kwargs: Any) -> int:
    job = await server.submit(**kwargs)
    await finish(server, client, job)
    return job


async def finish(server: Server, client: FakeClient, job: int) -> None:
    payload = await client.next_payload()
    await server.until(job, "Submitted")
    client.report(payload, PayloadStatus.RUNNING)
    await server.until(job, "Running")
    client.complete(payload)
    await server.ended(job)


async def test_job_stream_begins_with_the_current_state_and_ends_with_the_job(
    server: Server, client: FakeClient
) -> None:
    job = await server.submit()
    await server.until(job, "Submitted")
    async with stream(server, f"/jobs/{job}/events") as events:
        first = await anext(events)
        await finish(server, client, job)
        rest = [event async for event in events]
    assert states([first, *rest]) == ["Submitted", "Running", "Completed"]
    numbers = [int(event.id) for event in (first, *rest)]
    assert numbers == sorted(set(numbers))
    last = json.loads(rest[-1].data)
    assert (last["exit_code"], last["has_output"]) == (0, True)
    assert json.loads(rest[0].data)["ended_at"] is None
    async with stream(server, f"/jobs/{job}/events") as events:
        assert states([event async for event in events]) == ["Completed"]


async def test_stream_resumed_after_any_event_has_no_gap_and_no_repeat(
    server: Server, client: FakeClient
) -> None:
    job = await run(server, client, user=5)
    other = await run(server, client, user=6)
    async with stream(server, f"/jobs/{job}/events?last_event_id=0") as events:
        whole = [event async for event in events]
    assert states(whole) == ALL_STATES
    for number, event in enumerate(whole[:-1]):
        async with stream(server, f"/jobs/{job}/events", last=event.id) as events:
            assert [event async for event in events] == whole[number + 1 :]
    async with server.http.get(
        f"/jobs/{job}/events", headers={"Last-Event-ID": whole[-1].id}
    ) as response:
        assert response.status == 204, "a browser must not connect again and again"
    async with stream(server, "/events?user_id=6", last="0") as events:
        found = await take(events, len(ALL_STATES))
    assert states(found) == ALL_STATES
    assert {json.loads(event.data)["id"] for event in found} == {other}


async def test_user_stream_has_only_future_events_of_the_users_jobs(
    server: Server, client: FakeClient
) -> None:
    await run(server, client, user=5)
    async with stream(server, "/events?user_id=5") as events:
        await run(server, client, user=6)
        job = await run(server, client, user=5)
        found = await take(events, len(ALL_STATES))
    assert states(found) == ALL_STATES
    assert {json.loads(event.data)["id"] for event in found} == {job}


async def test_streams_opened_and_closed_under_load_miss_and_repeat_nothing(
    idle_server: Server,
) -> None:
    store = idle_server.app[keys.QUERIES].store

    async def churn() -> None:
        for number in range(60):
            job = await store.create(f"c{number}", 9, "other")
            await store.transition(job, JobStatus.KILLED, "")

    async def follow() -> list[str]:
        ids: list[str] = []
        last = "0"
        while len(ids) < 120:
            async with stream(idle_server, "/events?user_id=9", last=last) as events:
                ids += [event.id for event in await take(events, min(5, 120 - len(ids)))]
            last = ids[-1]
        return ids

    followers = [asyncio.create_task(follow()) for _ in range(3)]
    await churn()
    expected = [
        str(row[0])
        for row in idle_server.rows(
            "SELECT e.id FROM job_events e JOIN jobs ON jobs.id = job_id WHERE user_id = 9"
            " ORDER BY e.id"
        )
    ]
    assert await asyncio.gather(*followers) == [expected] * 3


async def test_stream_of_everything_has_services_and_clients_at_first_and_after_a_change(
    server: Server, client: FakeClient
) -> None:
    async with stream(server, "/events") as events:
        first = await take(events, 2)
        assert [event.kind for event in first] == ["services", "clients"]
        assert json.loads(first[0].data)["services"][0]["active"] == 0
        await server.submit()
        async for event in events:
            if event.kind == "services" and json.loads(event.data)["services"][0]["active"]:
                break


class Unreadable:
    """A source of which nothing may be read."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} was read")


async def test_streams_without_subscribers_read_nothing(server: Server, client: FakeClient) -> None:
    nothing: Any = Unreadable()
    streams = EventStreams(nothing, nothing)
    server.app[keys.QUERIES].store.subscribe(streams.on_job_changed)
    for loop in streams.loops:
        loop.start()
    await run(server, client)
    for loop in streams.loops:
        assert loop.alive
        await loop.stop()
        assert loop.failures == 0


async def test_stream_unknown_job_or_invalid_number_is_refused(idle_server: Server) -> None:
    for path, status in (("/jobs/7/events", 404), ("/events?last_event_id=x", 400)):
        async with idle_server.http.get(path) as response:
            assert response.status == status
            assert response.content_type == "application/json"


class CountedEvents:
    """The events of a store; ``most`` is the highest number of concurrent queries."""

    def __init__(self, events: Any) -> None:
        self._events = events
        self._queries = 0
        self.most = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._events, name)

    async def between(self, *args: Any, **kwargs: Any) -> Any:
        self._queries += 1
        self.most = max(self.most, self._queries)
        try:
            return await self._events.between(*args, **kwargs)
        finally:
            self._queries -= 1


async def test_streams_resumed_from_long_ago_run_few_concurrent_queries(
    server: Server, client: FakeClient
) -> None:
    for _ in range(3):
        await run(server, client)
    queries = server.app[keys.QUERIES]
    counted: Any = CountedEvents(queries.store.events)
    streams = EventStreams(counted, queries, window=2)

    async def read_all() -> list[str]:
        async with contextlib.aclosing(streams.follow(Topic(user_id=1), after=0)) as blocks:
            return states(await take(read_events(blocks), 3 * len(ALL_STATES)))

    async with asyncio.timeout(60):
        everything = await asyncio.gather(*(read_all() for _ in range(20)))
    assert everything == [ALL_STATES * 3] * 20
    assert counted.most <= MAX_REPLAYS


async def test_stream_resumed_after_an_unknown_number_begins_with_the_next_event(
    idle_server: Server,
) -> None:
    async with stream(idle_server, "/events?user_id=1", last="999999") as events:
        waiting = asyncio.ensure_future(anext(events))
        await idle_server.eventually(lambda: idle_server.app[keys.EVENT_STREAMS].open_streams == 1)
        await idle_server.submit(user=1)
        assert states([await waiting]) == ["Queued"]


async def test_stream_without_events_sends_keep_alives(idle_server: Server) -> None:
    streams = streams_of(idle_server, keep_alive_s=0.01)
    async with (
        asyncio.timeout(60),
        contextlib.aclosing(streams.follow(Topic(user_id=1), after=None)) as blocks,
    ):
        assert await anext(blocks) == b"", "the stream is open"
        assert await anext(blocks) == b": keep-alive\n\n"


async def test_stream_subscriber_reads_nothing_is_disconnected(
    idle_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The real time-out is longer than a test may take, and is no setting.
    monkeypatch.setattr(streaming, "WRITE_TIMEOUT_S", 0.1)
    open_streams = idle_server.app[keys.EVENT_STREAMS]
    store = idle_server.app[keys.QUERIES].store
    url = idle_server.url
    with socket.socket() as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(reader, (url.host, url.port))
        await loop.sock_sendall(reader, b"GET /events?user_id=1 HTTP/1.1\r\nHost: x\r\n\r\n")
        await idle_server.eventually(lambda: open_streams.open_streams == 1)
        for number in range(100):  # more than the socket buffers of both sides can hold
            job = await store.create(f"u{number}", 1, "other")
            await store.transition(job, JobStatus.KILLED, "x" * 100_000)
        await idle_server.eventually(lambda: open_streams.open_streams == 0)


async def test_backlog_overflows_the_rest_is_delivered_before_the_end() -> None:
    backlog = SubscriberQueue[int]()
    for number in range(MAX_QUEUED + 10):
        backlog.put(number)
    assert await backlog.next(1) == list(range(MAX_QUEUED))
    assert await backlog.next(1) is None


async def test_streams_end_when_the_server_stops(server: Server) -> None:
    async with stream(server, "/events") as events:
        await anext(events)
        async with asyncio.timeout(60):
            await server.app.shutdown()
            assert [event async for event in events if event.kind == "job"] == []
    async with stream(server, "/events") as late:
        assert len([event async for event in late]) == 2
