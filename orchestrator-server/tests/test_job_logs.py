"""Output of jobs' scripts: live from the client, afterwards from the stored results."""

import asyncio
import contextlib
import io
import tracemalloc
import zipfile
from collections.abc import Awaitable, Callable
from dataclasses import replace

import aiohttp
from aiohttp import web

from fake_client import FakeClient, answering, hang_up, zip_of
from job_orchestrator.common.status import PayloadStatus
from job_orchestrator.server import keys
from job_orchestrator.server.clients import http_connection as client_connection
from job_orchestrator.server.jobs.logs import MAX_READERS
from running_server import Server

STORED = {".orchestrator/stdout.txt": "one\ntwo\n", ".orchestrator/stderr.txt": "bad\n"}


def serving_logs(
    client: FakeClient, end: "asyncio.Event | None" = None
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Return a client's /logs: line "one" immediately, line "two" when ``end`` is set."""

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


async def read_logs(server: Server, job: int, query: str = "") -> bytes:
    async with asyncio.timeout(60), server.http.get(f"/jobs/{job}/logs{query}") as response:
        assert response.status == 200, await response.text()
        assert response.content_type == "text/plain"
        return await response.read()


async def logs_status(server: Server, job: int) -> int:
    async with server.http.get(f"/jobs/{job}/logs") as response:
        return response.status


async def running(server: Server, client: FakeClient) -> tuple[int, int]:
    job = await server.submit()
    payload = await client.next_payload()
    await server.until(job, "Submitted")
    client.report(payload, PayloadStatus.RUNNING)
    await server.until(job, "Running")
    return job, payload


async def test_logs_running_job_are_live_and_later_from_the_results(
    server: Server, client: FakeClient
) -> None:
    end = asyncio.Event()
    client.instead["logs"] = serving_logs(client, end)
    job, payload = await running(server, client)
    assert await read_logs(server, job) == b"one\n"
    async with asyncio.timeout(60), server.http.get(f"/jobs/{job}/logs?follow=1") as response:
        assert await response.content.readexactly(4) == b"one\n"
        client.complete(payload, **STORED)
        await server.ended(job)
        end.set()
        assert await response.read() == b"two\n"
    client.instead["logs"] = hang_up
    assert await read_logs(server, job) == b"one\ntwo\n"
    assert await read_logs(server, job, "?offset=5&follow=1") == b"wo\n"
    assert await read_logs(server, job, "?offset=100") == b""
    assert await read_logs(server, job, "?stream=stderr") == b"bad\n"


async def test_logs_followed_client_breaks_off_are_continued_at_the_same_offset(
    server: Server, client: FakeClient
) -> None:
    logs = replace(server.app[keys.JOB_LOGS], reconnect_s=0.01)
    client.instead["logs"] = serving_logs(client)
    job, payload = await running(server, client)
    received = bytearray()

    async def follow() -> None:
        async for block in logs.read(job, "stdout", follow=True):
            received.extend(block)

    following = asyncio.create_task(follow())
    await server.eventually(lambda: received == b"one\n")
    client.instead["logs"] = hang_up
    seen = client.requests["logs"]
    await server.eventually(lambda: client.requests["logs"] > seen + 1)
    client.complete(payload, **STORED)
    async with asyncio.timeout(60):
        await following
    assert received == b"one\ntwo\n", "the rest is read from the stored results"


async def test_logs_followed_queued_job_begin_with_the_start(
    server: Server, client: FakeClient
) -> None:
    client.instead["logs"] = serving_logs(client)
    jobs = [await server.submit() for _ in range(6)]
    payloads = [await client.next_payload() for _ in range(5)]
    assert await read_logs(server, jobs[5]) == b""
    async with asyncio.timeout(60), server.http.get(f"/jobs/{jobs[5]}/logs?follow=1") as response:
        assert response.status == 200
        client.complete(payloads[0])
        payload = await client.next_payload()
        client.report(payload, PayloadStatus.RUNNING)
        assert await response.content.readexactly(4) == b"one\n"
        client.complete(payload, **STORED)
        assert await response.read() == b"two\n"


async def test_logs_job_never_ran_are_empty(idle_server: Server) -> None:
    job = await idle_server.submit()
    await idle_server.http.post(f"/terminate/{job}")
    assert await read_logs(idle_server, job, "?follow=1") == b""


async def test_logs_results_without_output_are_empty(server: Server, client: FakeClient) -> None:
    job, payload = await running(server, client)
    client.results[payload] = zip_of(out="x")
    client.report(payload, PayloadStatus.COMPLETED)
    await server.ended(job)
    assert await read_logs(server, job) == b""


async def test_logs_client_fails_are_a_502(server: Server, client: FakeClient) -> None:
    job, _ = await running(server, client)
    client.instead["logs"] = answering(500, '{"message": "out of order"}')
    for query in ("", "?follow=1"):
        async with server.http.get(f"/jobs/{job}/logs{query}") as response:
            assert response.status == 502
            assert "out of order" in (await response.json())["message"]


async def test_logs_followed_server_stops_end(server: Server, client: FakeClient) -> None:
    client.instead["logs"] = serving_logs(client, asyncio.Event())
    job, _ = await running(server, client)
    async with asyncio.timeout(60), server.http.get(f"/jobs/{job}/logs?follow=1") as response:
        assert await response.content.readexactly(4) == b"one\n"
        server.app[keys.JOB_LOGS].close()
        with contextlib.suppress(aiohttp.ClientPayloadError):
            assert await response.content.read() == b""


async def test_logs_unknown_job_or_invalid_query_are_refused(idle_server: Server) -> None:
    job = await idle_server.submit()
    for path, status in (("/jobs/9/logs", 404), (f"/jobs/{job}/logs?stream=x", 400)):
        async with idle_server.http.get(path) as response:
            assert response.status == status


async def test_logs_many_readers_do_not_delay_other_jobs_of_the_client(
    server: Server, client: FakeClient
) -> None:
    end = asyncio.Event()
    client.instead["logs"] = serving_logs(client, end)
    job, payload = await running(server, client)
    async with contextlib.AsyncExitStack() as readers:
        for _ in range(client_connection.MAX_CONNECTIONS + 1):
            async with asyncio.timeout(60):
                await readers.enter_async_context(server.http.get(f"/jobs/{job}/logs?follow=1"))
        other = await server.submit()
        client.complete(await client.next_payload())
        assert (await server.ended(other))[0] == "Completed"
        client.complete(payload)
        end.set()


async def test_logs_results_with_many_files_need_constant_memory(
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
        assert await read_logs(server, job) == b"one\n"
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 << 20


async def test_logs_too_many_readers_are_a_503_and_other_jobs_are_not_affected(
    server: Server, client: FakeClient
) -> None:
    end = asyncio.Event()
    client.instead["logs"] = serving_logs(client, end)
    (job, _), (other, _) = await running(server, client), await running(server, client)
    async with contextlib.AsyncExitStack() as readers:
        for _ in range(MAX_READERS):
            reader = server.http.get(f"/jobs/{job}/logs?follow=1")
            answer = await readers.enter_async_context(reader)
            assert await answer.content.readline() == b"one\n"
        async with server.http.get(f"/jobs/{job}/logs") as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
            message = (await answer.json())["message"]
            assert f"is being read {MAX_READERS} times already" in message
        assert await read_logs(server, other) == b"one\n"
    end.set()
    async with asyncio.timeout(60):
        while await logs_status(server, job) != 200:  # noqa: ASYNC110 (there is no event)
            await asyncio.sleep(0.01)


async def test_output_names_its_attempt_followed_from_the_queue_over_the_claim(
    server: Server, client: FakeClient
) -> None:
    end = asyncio.Event()
    client.instead["logs"] = serving_logs(client, end)
    gate = client.hold_submits()
    job = await server.submit()
    await server.until(job, "Processing")
    async with asyncio.timeout(60), server.http.get(f"/jobs/{job}/logs?follow=1") as response:
        assert response.headers["Job-Attempt"] == "1"
        gate.set()
        payload = await client.next_payload()
        assert await response.content.readexactly(4) == b"one\n"
        client.complete(payload, **STORED)
        end.set()
        assert await response.read() == b"two\n"
    async with server.http.get(f"/jobs/{job}/logs") as response:
        assert response.headers["Job-Attempt"] == "1"


async def test_output_of_a_queued_job_names_the_attempt_that_is_next(idle_server: Server) -> None:
    job = await idle_server.submit()
    async with idle_server.http.get(f"/jobs/{job}/logs") as response:
        assert (response.headers["Job-Attempt"], await response.read()) == ("1", b"")
    async with idle_server.http.get(f"/jobs/{job}/logs?follow=1") as response:
        assert response.headers["Job-Attempt"] == "1"


async def test_followed_output_ends_when_its_attempt_was_given_up(
    server: Server, client: FakeClient
) -> None:
    gate = client.hold_submits()
    job = await server.submit()
    await server.until(job, "Processing")
    store = server.app[keys.JOB_LOGS].store
    async with asyncio.timeout(60), server.http.get(f"/jobs/{job}/logs?follow=1") as response:
        assert response.headers["Job-Attempt"] == "1"
        await store.requeue(
            await store.get(job),
            "given up",
            delay_s=3600.0,
            max_attempts=9,
            counts=True,
            may_still_run=False,
        )
        assert await response.read() == b""
    async with asyncio.timeout(60), server.http.get(f"/jobs/{job}/logs?follow=1") as response:
        assert response.headers["Job-Attempt"] == "2"
    gate.set()
