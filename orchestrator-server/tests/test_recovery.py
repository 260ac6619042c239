"""Recovery after a restart of the server, and abandoned attempts of clients that were away."""

import asyncio
import contextlib
import sqlite3

import pytest
from aiohttp import web

from fake_client import FakeClient, StartClient, answering, hang_up, never
from job_orchestrator.common.runtime.backoff import Backoff
from job_orchestrator.common.status import PayloadStatus
from running_server import Server, StartServer, tuned


async def stop(server: Server) -> None:
    """Stop a server, as SIGTERM does."""
    await server.app.shutdown()
    await server.app.cleanup()


def client_urls(server: Server) -> list[str]:
    return [client.name.removesuffix("/submit") for client in server.clients]


def abandoned(server: Server) -> list[tuple[str, str]]:
    return server.rows("SELECT client_url, key FROM strays")


async def test_trap_16_attempt_that_was_given_up_is_ended_when_its_client_is_back(
    start_client: StartClient, start_server: StartServer
) -> None:
    silent, other = FakeClient(), FakeClient()
    silent.slots = 100
    urls = await start_client(silent), await start_client(other)
    first = await start_server(*urls, LOST_AFTER="0.2s")
    await first.hears_clients()
    job = await first.submit()
    stale = await silent.next_payload()
    silent.report(stale, PayloadStatus.RUNNING)
    await first.until(job, "Running")
    silent.go_away()
    other.complete(await other.next_payload(), out="second")
    assert await first.ended(job) == ("Completed", "")
    assert abandoned(first) == [(f"{urls[0]}/submit", silent.keys[stale])]

    await stop(first)
    silent.come_back()
    second = await start_server(*urls, LOST_AFTER="0.2s")
    await second.eventually(lambda: abandoned(second) == [])
    assert silent.killed_keys == [silent.keys[stale]]
    assert silent.payloads[stale].status is PayloadStatus.KILLED
    await second.eventually(lambda: silent.acknowledged == {stale})
    assert (await second.results(job)).read("out") == b"second"


async def test_trap_16_abandoned_attempt_is_ended_before_its_client_gets_the_job_again(
    server: Server, client: FakeClient, start_client: StartClient, start_server: StartServer
) -> None:
    await stop(server)
    url = await start_client(client)
    second = await start_server(url, LOST_AFTER="0.2s")
    job = await second.submit()
    await client.next_payload()
    await second.until(job, "Submitted")
    client.go_away()
    client.instead["submit"] = answering(503)
    await second.until(job, "Queued")
    seen: list[list[str]] = []

    async def record_kills(request: web.Request) -> web.StreamResponse:
        seen.append(list(client.killed_keys))
        return await client.submit(request)

    client.instead["submit"] = record_kills
    client.come_back()
    client.complete(await client.next_payload())
    assert await second.ended(job) == ("Completed", "")
    assert seen == [[client.keys[1]]]


async def test_trap_16_client_is_not_given_up_for_the_time_that_the_server_was_down(
    server: Server, client: FakeClient, start_server: StartServer
) -> None:
    job = await server.submit()
    payload = await client.next_payload()
    await server.until(job, "Submitted")
    client.go_away()
    await server.until(job, "Unknown")
    urls = client_urls(server)
    await stop(server)
    with contextlib.closing(sqlite3.connect(server.root / "db.sqlite")) as database, database:
        database.execute("UPDATE jobs SET changed_at = 1.0")
    client.come_back()
    second = await start_server(*urls)
    client.complete(payload)
    assert await second.ended(job) == ("Completed", "")
    assert second.rows("SELECT attempt FROM jobs") == [(1,)]


async def test_trap_16_job_of_a_client_that_is_not_configured_any_more_is_run_elsewhere(
    server: Server, client: FakeClient, start_client: StartClient, start_server: StartServer
) -> None:
    job = await server.submit()
    payload = await client.next_payload()
    client.report(payload, PayloadStatus.RUNNING)
    await server.until(job, "Running")
    await stop(server)
    other = FakeClient()
    second = await start_server(await start_client(other), LOST_AFTER="0.2s")
    other.complete(await other.next_payload())
    assert await second.ended(job) == ("Completed", "")
    assert second.rows("SELECT to_status FROM job_events WHERE from_status = 'Unknown'") == [
        ("Queued",)
    ]
    assert [key for _, key in abandoned(second)] == [client.keys[payload]]


@pytest.mark.parametrize("older", [False, True], ids=["by-key", "older-client"])
async def test_trap_10_job_terminated_while_a_dying_server_sent_it_does_not_run(
    server: Server, client: FakeClient, start_server: StartServer, older: bool
) -> None:
    accept = client.submit

    async def answer_never(request: web.Request) -> web.StreamResponse:
        await accept(request)
        return await never(request)

    client.instead["submit"] = answer_never
    if older:
        client.instead["kill_key"] = answering(404)
    job = await server.submit()
    payload = await client.next_payload()
    terminating = asyncio.create_task(server.http.post(f"/terminate/{job}"))
    await server.eventually(lambda: server.rows("SELECT kill_requested FROM jobs") == [(1,)])
    urls = client_urls(server)
    await stop(server)
    terminating.cancel()
    del client.instead["submit"]
    second = await start_server(*urls)
    assert await second.ended(job) == ("Killed", "Terminated on request")
    assert client.payloads[payload].status is PayloadStatus.KILLED
    assert len(client.payloads) == 1


@tuned(resubmit_backoff=Backoff((0.01,)))
@pytest.mark.parametrize("status", [200, 502, 504])
async def test_trap_17_submit_that_a_proxy_answers_is_repeated_with_its_key(
    server: Server, client: FakeClient, status: int
) -> None:
    accept = client.submit

    async def garble(request: web.Request) -> web.StreamResponse:
        await accept(request)
        del client.instead["submit"]
        return web.Response(status=status, text="<html>", content_type="text/html")

    client.instead["submit"] = garble
    job = await server.submit()
    client.complete(await client.next_payload())
    assert await server.ended(job) == ("Completed", "")
    assert len(client.payloads) == 1
    assert server.rows("SELECT attempt FROM jobs") == [(1,)]


async def test_output_of_a_terminated_job_is_fetched_after_a_restart(
    server: Server, client: FakeClient, start_server: StartServer
) -> None:
    job = await server.submit()
    client.report(await client.next_payload(), PayloadStatus.RUNNING)
    await server.until(job, "Running")
    client.instead["partial"] = never
    async with server.http.post(f"/terminate/{job}") as response:
        assert response.status == 200
    urls = client_urls(server)
    await stop(server)
    del client.instead["partial"]
    second = await start_server(*urls)
    await second.eventually(lambda: second.rows("SELECT has_output FROM jobs") == [(1,)])
    assert (await second.results(job, "download_partial")).read("partial") == b"so far"


@tuned(resubmit_backoff=Backoff((0.01,)))
@pytest.mark.parametrize("end", [b"ZZ\r\n", b"\x00\x01\x02"])
async def test_trap_17_submit_whose_answer_turns_into_garbage_is_repeated_with_its_key(
    server: Server, client: FakeClient, end: bytes
) -> None:
    accept = client.submit

    async def garble(request: web.Request) -> web.StreamResponse:
        await accept(request)
        del client.instead["submit"]
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        assert request.transport is not None
        request.transport.write(b'5\r\n{"id"\r\n' + end)
        return response

    client.instead["submit"] = garble
    job = await server.submit()
    client.complete(await client.next_payload())
    assert await server.ended(job) == ("Completed", "")
    assert server.rows("SELECT attempt FROM jobs") == [(1,)]


async def test_trap_25_event_stream_that_turns_into_garbage_is_opened_again_immediately(
    server: Server, client: FakeClient
) -> None:
    async def garble(request: web.Request) -> web.StreamResponse:
        del client.instead["events"]
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(client.load_event())
        (seen_by_the_server,) = server.clients
        await server.eventually(lambda: seen_by_the_server.pushes)
        assert request.transport is not None
        request.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nPK")
        return await never(request)

    client.instead["events"] = garble
    client.push(b"")  # ends the present stream
    await server.eventually(lambda: client.requests["events"] == 3)


@tuned(fetch_retry_s=0.01, output_patience_s=0.5)
@pytest.mark.parametrize("status", [500, 507])
async def test_trap_20_job_whose_output_its_client_can_not_give_ends_as_it_did_and_runs_once(
    server: Server, client: FakeClient, status: int
) -> None:
    client.instead["partial"] = answering(status, '{"message": "The disk is full"}')
    job = await server.submit()
    client.report(
        await client.next_payload(),
        PayloadStatus.FAILED,
        exit_code=7,
        message="run.sh exited with code 7",
    )
    ended, message = await server.ended(job)
    assert ended == "Failed"
    assert message.startswith("run.sh exited with code 7. Its output could not be fetched (")
    assert message.endswith("The disk is full)")
    assert len(client.payloads) == 1


@tuned(resubmit_backoff=Backoff((0.01,)))
@pytest.mark.parametrize("status", [500, 503, 507])
async def test_trap_17_repeat_of_a_submit_that_its_client_can_not_answer_now_is_repeated_again(
    server: Server, client: FakeClient, status: int
) -> None:
    accept = client.submit

    async def lose_the_first(request: web.Request) -> web.StreamResponse:
        if client.requests["submit"] == 1:
            await accept(request)
            return await hang_up(request)
        if client.requests["submit"] < 4:
            return await answering(status)(request)
        return await accept(request)

    client.instead["submit"] = lose_the_first
    job = await server.submit()
    client.complete(await client.next_payload())
    assert await server.ended(job) == ("Completed", "")
    assert len(client.payloads) == 1
    assert server.rows("SELECT attempt FROM jobs") == [(1,)]


@tuned(reconcile_after_s=3600.0, event_stream_timeout_s=3600.0, reconnect_backoff=Backoff((0.01,)))
async def test_end_that_was_reported_while_the_job_was_being_delivered_is_not_missed(
    server: Server, client: FakeClient
) -> None:
    answered = asyncio.Event()

    async def accept_slowly(request: web.Request) -> web.StreamResponse:
        accepted = await client.submit(request)
        await answered.wait()
        return accepted

    client.instead["submit"] = accept_slowly
    job = await server.submit()
    payload = await client.next_payload()
    client.go_away()
    (known,) = server.clients
    await server.eventually(lambda: bool(known.problem))
    client.complete(payload)  # nobody hears it
    client.come_back()
    await server.eventually(lambda: not known.problem)
    answered.set()
    assert await server.ended(job) == ("Completed", "")
