"""What a job's script says, live from its client and then from the kept output."""

import asyncio
import contextlib
import io
import tracemalloc
import zipfile
from collections.abc import Awaitable, Callable

import aiohttp
import pytest
from aiohttp import web

from fake_client import FakeClient, answering, hang_up, zip_of
from job_orchestrator.common.status import PayloadStatus
from job_orchestrator.server import keys
from job_orchestrator.server.clients import http_connection as client_connection
from job_orchestrator.server.jobs import logs as job_logs
from running_server import Server

KEPT = {".orchestrator/stdout.txt": "one\ntwo\n", ".orchestrator/stderr.txt": "bad\n"}


def saying(
    client: FakeClient, end: "asyncio.Event | None" = None
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """A client's /logs: "one" at once, "two" when ``end`` is set."""

    async def logs(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        offset = int(request.query["offset"])
        await response.write(b"one\n"[offset:])
        if end is not None and request.query["follow"] == "1":
            await end.wait()
            await response.write(b"one\ntwo\n"[max(offset, 4) :])
        return response

    return logs


async def said(server: Server, job: int, query: str = "") -> bytes:
    async with asyncio.timeout(20), server.http.get(f"/jobs/{job}/logs{query}") as response:
        assert response.status == 200, await response.text()
        assert response.content_type == "text/plain"
        return await response.read()


async def running(server: Server, client: FakeClient) -> tuple[int, int]:
    job = await server.submit()
    payload = await client.next_payload()
    await server.until(job, "Submitted")
    client.report(payload, PayloadStatus.RUNNING)
    await server.until(job, "Running")
    return job, payload


async def test_output_is_live_while_it_runs_and_kept_afterwards(
    server: Server, client: FakeClient
) -> None:
    end = asyncio.Event()
    client.instead["logs"] = saying(client, end)
    job, payload = await running(server, client)
    assert await said(server, job) == b"one\n"
    async with asyncio.timeout(20), server.http.get(f"/jobs/{job}/logs?follow=1") as response:
        assert await response.content.readexactly(4) == b"one\n"
        client.complete(payload, **KEPT)
        await server.ended(job)
        end.set()
        assert await response.read() == b"two\n"
    client.instead["logs"] = hang_up
    assert await said(server, job) == b"one\ntwo\n"
    assert await said(server, job, "?offset=5&follow=1") == b"wo\n"
    assert await said(server, job, "?offset=100") == b""
    assert await said(server, job, "?stream=stderr") == b"bad\n"


async def test_following_goes_on_where_the_client_broke_off(
    server: Server, client: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_logs, "RECONNECT_S", 0.01)
    client.instead["logs"] = saying(client)
    job, payload = await running(server, client)
    async with asyncio.timeout(20), server.http.get(f"/jobs/{job}/logs?follow=1") as response:
        assert await response.content.readexactly(4) == b"one\n"
        client.instead["logs"] = hang_up
        await server.eventually(lambda: client.requests["logs"] > 2)
        client.complete(payload, **KEPT)
        assert await response.read() == b"two\n", "what was missed is read from the kept output"


async def test_followed_queued_job_waits_for_its_start(server: Server, client: FakeClient) -> None:
    client.instead["logs"] = saying(client)
    client.slots = 0
    jobs = [await server.submit() for _ in range(6)]
    payloads = [await client.next_payload() for _ in range(5)]
    assert await said(server, jobs[5]) == b""
    async with asyncio.timeout(20), server.http.get(f"/jobs/{jobs[5]}/logs?follow=1") as response:
        assert response.status == 200
        client.complete(payloads[0])
        payload = await client.next_payload()
        client.report(payload, PayloadStatus.RUNNING)
        assert await response.content.readexactly(4) == b"one\n"
        client.complete(payload, **KEPT)
        assert await response.read() == b"two\n"


async def test_job_that_never_ran_has_said_nothing(idle_server: Server) -> None:
    job = await idle_server.submit()
    await idle_server.http.post(f"/terminate/{job}")
    assert await said(idle_server, job, "?follow=1") == b""


async def test_output_of_an_older_client_has_none(server: Server, client: FakeClient) -> None:
    job, payload = await running(server, client)
    client.results[payload] = zip_of(out="x")
    client.report(payload, PayloadStatus.COMPLETED)
    await server.ended(job)
    assert await said(server, job) == b""


async def test_failing_client_is_told_before_the_answer_begins(
    server: Server, client: FakeClient
) -> None:
    job, _ = await running(server, client)
    client.instead["logs"] = answering(500, '{"message": "out of order"}')
    for query in ("", "?follow=1"):
        async with server.http.get(f"/jobs/{job}/logs{query}") as response:
            assert response.status == 502
            assert "out of order" in (await response.json())["message"]


async def test_following_ends_when_the_server_stops(server: Server, client: FakeClient) -> None:
    client.instead["logs"] = saying(client, asyncio.Event())
    job, _ = await running(server, client)
    async with asyncio.timeout(10), server.http.get(f"/jobs/{job}/logs?follow=1") as response:
        assert await response.content.readexactly(4) == b"one\n"
        server.app[keys.JOB_LOGS].close()
        with contextlib.suppress(aiohttp.ClientPayloadError):
            assert await response.content.read() == b""


async def test_unknown_job_and_wrong_query_are_told(idle_server: Server) -> None:
    job = await idle_server.submit()
    for path, status in (("/jobs/9/logs", 404), (f"/jobs/{job}/logs?stream=x", 400)):
        async with idle_server.http.get(path) as response:
            assert response.status == status


async def test_readers_use_up_no_connection_by_which_jobs_are_run(
    server: Server, client: FakeClient
) -> None:
    end = asyncio.Event()
    client.instead["logs"] = saying(client, end)
    job, payload = await running(server, client)
    async with contextlib.AsyncExitStack() as readers:
        for _ in range(client_connection.MAX_CONNECTIONS + 1):
            async with asyncio.timeout(5):
                await readers.enter_async_context(server.http.get(f"/jobs/{job}/logs?follow=1"))
        other = await server.submit()
        client.complete(await client.next_payload())
        assert (await server.ended(other))[0] == "Completed"
        client.complete(payload)
        end.set()


async def test_kept_output_is_found_among_very_many_files_without_their_memory(
    server: Server, client: FakeClient
) -> None:
    job, payload = await running(server, client)
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        for number in range(20_000):
            archive.writestr(str(number), b"")
        archive.writestr(".orchestrator/stdout.txt", b"one\n")
    client.results[payload] = body.getvalue()
    client.report(payload, PayloadStatus.COMPLETED, exit_code=0)
    await server.ended(job)
    tracemalloc.start()
    try:
        assert await said(server, job) == b"one\n"
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 << 20


async def test_job_is_read_by_no_more_than_may_read_it_and_others_are_read_all_the_same(
    server: Server, client: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_logs, "MAX_READERS", 2)
    end = asyncio.Event()
    client.instead["logs"] = saying(client, end)
    (job, _), (other, _) = await running(server, client), await running(server, client)
    async with contextlib.AsyncExitStack() as readers:
        for _ in range(2):
            reader = server.http.get(f"/jobs/{job}/logs?follow=1")
            answer = await readers.enter_async_context(reader)
            assert await answer.content.readline() == b"one\n"
        async with server.http.get(f"/jobs/{job}/logs") as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
            assert "is being read 2 times already" in (await answer.json())["message"]
        assert await said(server, other) == b"one\n"
    end.set()
    await server.eventually(lambda: not server.app[keys.JOB_LOGS]._readers)
    assert await said(server, job) == b"one\n"
