"""Event streams: exact, resumed without gap or repeat, bounded, and closed before the server."""

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
from job_orchestrator.server.jobs import event_streams as journal
from job_orchestrator.server.store.sqlite.events import JobEvents
from running_server import Server

LIFE = ["Queued", "Processing", "Submitted", "Running", "Completed"]


@contextlib.asynccontextmanager
async def stream(
    server: Server, path: str, last: str | None = None
) -> AsyncIterator[AsyncIterator[Event]]:
    headers = {} if last is None else {"Last-Event-ID": last}
    async with asyncio.timeout(20), server.http.get(path, headers=headers) as response:
        assert response.status == 200, await response.text()
        assert response.content_type == "text/event-stream"
        assert response.headers["Cache-Control"] == "no-cache"
        yield read_events(response.content.iter_any())


async def take(events: AsyncIterator[Event], number: int) -> list[Event]:
    return [await anext(events) for _ in range(number)]


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


async def test_stream_of_a_job_begins_with_it_as_it_is_and_ends_with_it(
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


async def test_stream_resumes_after_any_event_without_gap_or_repeat(
    server: Server, client: FakeClient
) -> None:
    job = await run(server, client, user=5)
    other = await run(server, client, user=6)
    async with stream(server, f"/jobs/{job}/events?last_event_id=0") as events:
        whole = [event async for event in events]
    assert states(whole) == LIFE
    for number, event in enumerate(whole[:-1]):
        async with stream(server, f"/jobs/{job}/events", last=event.id) as events:
            assert [event async for event in events] == whole[number + 1 :]
    async with server.http.get(
        f"/jobs/{job}/events", headers={"Last-Event-ID": whole[-1].id}
    ) as response:
        assert response.status == 204, "a browser must not connect again and again"
    async with stream(server, "/events?user_id=6", last="0") as events:
        found = await take(events, len(LIFE))
    assert states(found) == LIFE
    assert {json.loads(event.data)["id"] for event in found} == {other}


async def test_stream_of_a_user_begins_with_nothing_of_the_past_and_has_no_other_users_jobs(
    server: Server, client: FakeClient
) -> None:
    await run(server, client, user=5)
    async with stream(server, "/events?user_id=5") as events:
        await run(server, client, user=6)
        job = await run(server, client, user=5)
        found = await take(events, len(LIFE))
    assert states(found) == LIFE
    assert {json.loads(event.data)["id"] for event in found} == {job}


async def test_nothing_is_missed_or_repeated_while_streams_come_and_go(
    idle_server: Server,
) -> None:
    store = idle_server.app[keys.SUBMISSION].store

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


async def test_stream_of_everything_shows_services_and_clients_first_and_when_they_change(
    server: Server, client: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stream(server, "/events") as events:
        first = await take(events, 2)
        assert [event.kind for event in first] == ["services", "clients"]
        assert json.loads(first[0].data)["services"][0]["active"] == 0
        await server.submit()
        async for event in events:
            if event.kind == "services" and json.loads(event.data)["services"][0]["active"]:
                break


async def test_nothing_is_read_while_nobody_follows(
    server: Server, client: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = server.app[keys.JOURNAL]._events
    monkeypatch.setattr(type(events), "_rows", lambda *_: pytest.fail("read"))
    monkeypatch.setattr(journal.Journal, "_overview_now", lambda *_: pytest.fail("read"))
    await run(server, client)
    for loop in server.app[keys.JOURNAL].loops:
        assert loop.failures == 0


async def test_unknown_jobs_and_wrong_numbers_are_told(idle_server: Server) -> None:
    for path, status in (("/jobs/7/events", 404), ("/events?last_event_id=x", 400)):
        async with idle_server.http.get(path) as response:
            assert response.status == status
            assert response.content_type == "application/json"


async def test_streams_that_begin_long_ago_read_a_few_at_a_time(
    server: Server, client: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        await run(server, client)
    between, reading, most = JobEvents.between, 0, 0

    async def counted(self: JobEvents, *args: Any) -> Any:
        nonlocal reading, most
        reading += 1
        most = max(most, reading)
        try:
            return await between(self, *args)
        finally:
            reading -= 1

    monkeypatch.setattr(JobEvents, "between", counted)
    monkeypatch.setattr(journal, "WINDOW", 2)

    async def read_all() -> list[str]:
        async with stream(server, "/events?user_id=1&last_event_id=0") as events:
            return states(await take(events, 15))

    whole = await asyncio.gather(*(read_all() for _ in range(20)))
    assert whole == [["Queued", "Processing", "Submitted", "Running", "Completed"] * 3] * 20
    assert most <= journal.MAX_REPLAYS


async def test_number_that_was_never_given_is_taken_for_the_last(idle_server: Server) -> None:
    async with stream(idle_server, "/events?user_id=1", last="999999") as events:
        waiting = asyncio.ensure_future(anext(events))
        await idle_server.eventually(lambda: idle_server.app[keys.JOURNAL].open_streams == 1)
        await idle_server.submit(user=1)
        assert states([await waiting]) == ["Queued"]


async def test_idle_stream_shows_that_it_lives(
    idle_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "KEEP_ALIVE_S", 0.01)
    async with asyncio.timeout(20), idle_server.http.get("/events?user_id=1") as response:
        assert await response.content.readany() == b": keep-alive\n\n"


async def test_reader_that_takes_nothing_is_cut_off(
    idle_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "WRITE_TIMEOUT_S", 0.1)
    followed = idle_server.app[keys.JOURNAL]
    url = idle_server.http._base_url
    assert url is not None
    with socket.socket() as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(reader, (url.host, url.port))
        await loop.sock_sendall(reader, b"GET /events?user_id=1 HTTP/1.1\r\nHost: x\r\n\r\n")
        await idle_server.eventually(lambda: followed.open_streams == 1)
        (slow,) = followed._streams
        for _ in range(100):
            slow.backlog.put(journal.Entry(0, b":" + b"x" * 100_000 + b"\n\n"))
        await idle_server.eventually(lambda: followed.open_streams == 0)


async def test_reader_that_falls_behind_gets_what_waits_and_then_the_end() -> None:
    backlog = SubscriberQueue[int]()
    for number in range(MAX_QUEUED + 10):
        backlog.put(number)
    assert await backlog.next(1) == list(range(MAX_QUEUED))
    assert await backlog.next(1) is None


async def test_streams_end_before_the_server_stops(server: Server) -> None:
    async with stream(server, "/events") as events:
        await anext(events)
        async with asyncio.timeout(10):
            await server.app.shutdown()
            assert [event async for event in events if event.kind == "job"] == []
    async with stream(server, "/events") as late:
        assert len([event async for event in late]) == 2
