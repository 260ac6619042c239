"""Bringing states and results back from clients that behave, and that don't."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from fake_client import FakeClient, answering, hang_up, zip_of
from job_orchestrator.common.messages import Payload, PayloadEvent
from job_orchestrator.common.status import JobStatus, PayloadStatus
from job_orchestrator.server.app import BACKGROUND
from job_orchestrator.server.clients import http as client_api
from job_orchestrator.server.clients.registry import Client
from job_orchestrator.server.dispatch import collector as getter_module
from job_orchestrator.server.dispatch.collector import Getter
from job_orchestrator.server.model import Job
from job_orchestrator.server.store.sqlite.store import SqliteJobStore
from running_server import Server, StartServer

StartClient = Callable[[FakeClient], Awaitable[str]]


async def test_end_that_is_pushed_before_the_submit_is_answered_is_not_missed(
    server: Server, client: FakeClient
) -> None:
    original = client._submit

    async def quick(request: web.Request) -> web.Response:
        response = await original(request)
        client.complete(await client.next_payload())
        return response

    client.instead["submit"] = quick
    assert await server.ended(await server.submit()) == ("Completed", "")


async def test_end_that_is_pushed_while_the_submit_is_written_down_is_not_missed(
    server: Server, client: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, heard = SqliteJobStore.transition, asyncio.Event()
    on_event = Getter.on_event

    def listen(self: Getter, client: Client, event: PayloadEvent) -> None:
        on_event(self, client, event)
        heard.set()

    async def end_first(
        self: SqliteJobStore, job: Job, wanted: JobStatus, *rest: Any, **kw: Any
    ) -> Job:
        if wanted is JobStatus.SUBMITTED:
            client.complete(await client.next_payload())
            await heard.wait()
        return await original(self, job, wanted, *rest, **kw)

    monkeypatch.setattr(SqliteJobStore, "transition", end_first)
    monkeypatch.setattr(Getter, "on_event", listen)
    assert await server.ended(await server.submit()) == ("Completed", "")
    assert client.requests["events"] == 1, "only a new connection brought it"


async def test_ends_of_more_jobs_than_a_client_is_asked_for_at_once_are_not_missed(
    start_server: StartServer,
    start_client: StartClient,
    client: FakeClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not even those that come while the server is taking note that the job was sent."""
    original, retrieve, let_go = Getter.submitted, client._retrieve, asyncio.Event()
    ended: asyncio.Queue[int] = asyncio.Queue()

    def end_first(self: Getter, job: Job, payload: Payload) -> None:
        client.results[payload.id] = zip_of(out="x")
        client.report(payload.id, PayloadStatus.COMPLETED, push=False)
        self.on_event(next(iter(self._pool)), PayloadEvent(payload.id, PayloadStatus.COMPLETED))
        original(self, job, payload)
        ended.put_nowait(job.id)

    async def slow(request: web.Request) -> web.StreamResponse:
        await let_go.wait()
        return await retrieve(request)

    monkeypatch.setattr(getter_module, "MAX_LOOKS", 1)
    monkeypatch.setattr(Getter, "submitted", end_first)
    client.instead["retrieve"] = slow
    server = await start_server(await start_client(client))
    await client.connected.wait()
    jobs = [await server.submit() for _ in range(3)]
    for _ in jobs:
        await ended.get()
    let_go.set()
    for job in jobs:
        assert await server.ended(job) == ("Completed", "")


async def test_failed_payload_keeps_output_message_and_exit_code(
    server: Server, client: FakeClient
) -> None:
    job = await server.submit()
    client.report(
        await client.next_payload(),
        PayloadStatus.FAILED,
        exit_code=7,
        message="run.sh exited with code 7",
    )
    assert await server.ended(job) == ("Failed", "run.sh exited with code 7")
    assert (await server.results(job, "download_partial")).read("partial") == b"so far"
    assert server.rows("SELECT exit_code, has_output FROM jobs") == [(7, 1)]


async def test_trap_20_payload_that_the_client_lost_is_run_again(
    server: Server, client: FakeClient
) -> None:
    job = await server.submit()
    first = await client.next_payload()
    client.report(first, PayloadStatus.COMPLETED)
    del client.payloads[first]
    second = await client.next_payload()
    client.complete(second)
    assert await server.ended(job) == ("Completed", "")
    assert client.keys[first] != client.keys[second]
    assert server.rows("SELECT attempt, failures FROM jobs") == [(2, 1)]


async def test_trap_19_results_of_another_key_are_nobodys(
    server: Server, client: FakeClient
) -> None:
    job = await server.submit()
    payload = await client.next_payload()
    client.keys[payload] = "of.another-server"
    client.complete(payload, out="somebody else's")
    client.complete(await client.next_payload(), out="mine")
    assert await server.ended(job) == ("Completed", "")
    assert (await server.results(job)).read("out") == b"mine"


async def test_trap_32_results_that_are_cut_off_are_never_served_and_fetched_again(
    server: Server, client: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(getter_module, "RETRY_S", 0.0)
    whole = zip_of(out="x" * 1000)

    async def cut(request: web.Request) -> web.Response:
        body = whole if client.requests["retrieve"] > 2 else whole[:-30]
        headers = {"Idempotency-Key": client.keys[1]}
        return web.Response(body=body, content_type="application/zip", headers=headers)

    client.instead["retrieve"] = cut
    job = await server.submit()
    client.complete(await client.next_payload())
    assert await server.ended(job) == ("Completed", "")
    assert (await server.results(job)).read("out") == b"x" * 1000
    assert not [name for name in server.folders() if "/.output" in name]


async def test_unknown_job_is_run_again_only_after_lost_after(
    start_client: StartClient, start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(getter_module, "RETRY_S", 0.0)
    gone, other = FakeClient(), FakeClient()
    gone.slots, other.slots = 100, 1
    server = await start_server(
        await start_client(gone), await start_client(other), LOST_AFTER="0.3s"
    )
    await server.hears_clients()
    job = await server.submit()
    payload = await gone.next_payload()
    gone.instead |= {"events": hang_up, "retrieve": hang_up, "submit": hang_up}
    gone._push(b"")
    other.complete(await other.next_payload())
    assert await server.ended(job) == ("Completed", "")
    why = server.rows("SELECT to_status FROM job_events ORDER BY rowid")
    assert [row[0] for row in why if row[0] != "Running"] == [
        "Queued",
        "Processing",
        "Submitted",
        "Unknown",
        "Queued",
        "Processing",
        "Submitted",
        "Completed",
    ]
    assert payload in gone.payloads


async def test_trap_16_what_a_lost_client_says_is_not_taken_for_news_of_the_next_run(
    start_client: StartClient, start_server: StartServer
) -> None:
    gone, other = FakeClient(), FakeClient()
    gone.slots, other.slots = 100, 1
    server = await start_server(
        await start_client(gone), await start_client(other), LOST_AFTER="0.3s"
    )
    await server.hears_clients()
    asked, gate = asyncio.Event(), asyncio.Event()

    async def knows_nothing_any_more(request: web.Request) -> web.StreamResponse:
        asked.set()
        await gate.wait()
        return await answering(404)(request)

    gone.instead["retrieve"] = knows_nothing_any_more
    job = await server.submit()
    gone.complete(await gone.next_payload())
    await asked.wait()
    gone.instead |= {"events": hang_up, "submit": hang_up}
    gone._push(b"")
    other.complete(await other.next_payload())
    # Told of while the first client is still being asked.
    looking = server.app[BACKGROUND]._getter._looking
    await server.eventually(lambda: looking[job])
    gate.set()
    assert await server.ended(job) == ("Completed", "")
    assert server.rows("SELECT attempt FROM jobs") == [(2,)]
    assert other.submitted.empty()


async def test_client_that_answers_only_errors_keeps_no_job_for_ever(
    start_client: StartClient, start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(getter_module, "RETRY_S", 0.0)
    client = FakeClient()
    client.instead["retrieve"] = answering(500, '{"message": "out of order"}')
    server = await start_server(
        await start_client(client), LOST_AFTER="0.3s", SERVICE_EXAMPLE_MAX_ATTEMPTS="1"
    )
    job = await server.submit()
    client.complete(await client.next_payload())
    await server.until(job, "Unknown")
    status, message = await server.ended(job)
    assert status == "Failed"
    assert "answered 500: out of order" in message


async def test_jobs_of_an_earlier_life_are_taken_up(
    start_client: StartClient, start_server: StartServer, tmp_path: object
) -> None:
    client = FakeClient()
    url = await start_client(client)
    first = await start_server(url)
    job = await first.submit()
    payload = await client.next_payload()
    await first.until(job, "Submitted")
    await first.app.shutdown()
    await first.app.cleanup()
    client.results[payload] = zip_of(out="meanwhile")
    client.report(payload, PayloadStatus.COMPLETED, push=False)
    second = await start_server(url)
    assert await second.ended(job) == ("Completed", "")
    assert client.requests["submit"] == 1


async def test_trap_37_full_disk_at_fetch_waits_for_room(
    server: Server, client: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(getter_module, "RETRY_S", 0.0)
    job = await server.submit()
    payload = await client.next_payload()
    await server.until(job, "Submitted")
    (folder,) = [p for p in (server.root / "data").iterdir() if p.name != "incoming"]
    # /dev/full is a disk without room: every write to it fails with ENOSPC.
    (folder / ".output-1").symlink_to("/dev/full")
    client.complete(payload, out="fits")
    assert await server.ended(job) == ("Completed", "")
    assert client.requests["retrieve"] == 2


async def test_old_payload_without_our_fields_gets_a_message(
    server: Server, client: FakeClient
) -> None:
    job = await server.submit()
    payload = await client.next_payload()
    client.instead["partial"] = answering(404)
    client.report(payload, PayloadStatus.FAILED)
    client.payloads[payload] = Payload(payload, PayloadStatus.FAILED, message=None)
    assert await server.ended(job) == ("Failed", "The client reports Failed")


async def test_silent_event_stream_is_given_up(
    start_client: StartClient, start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_api, "SILENCE_S", 0.05)
    client = FakeClient()
    server = await start_server(await start_client(client))
    await server.eventually(lambda: client.requests["events"] >= 2)
    monkeypatch.undo()
    job = await server.submit()
    client.complete(await client.next_payload())
    assert await server.ended(job) == ("Completed", "")
