"""Fetching of states and results from clients that work, and from those that don't."""

import asyncio
import hashlib
from datetime import datetime
from typing import Any

import pytest
from aiohttp import web

from fake_client import FakeClient, StartClient, answering, hang_up, zip_of
from job_orchestrator.common.messages.payloads import Payload, PayloadEvent
from job_orchestrator.common.protocol.digests import repr_digest
from job_orchestrator.common.status import JobStatus, PayloadStatus
from job_orchestrator.server import keys
from job_orchestrator.server.app import DISPATCH
from job_orchestrator.server.model import Job
from job_orchestrator.server.store.sqlite.store import SqliteJobStore
from running_server import Server, StartServer, in_folders, tuned


async def test_end_that_is_pushed_before_the_submit_is_answered_is_not_missed(
    server: Server, client: FakeClient
) -> None:
    original = client.submit

    async def quick(request: web.Request) -> web.Response:
        response = await original(request)
        client.complete(await client.next_payload())
        return response

    client.instead["submit"] = quick
    assert await server.ended(await server.submit()) == ("Completed", "")


async def test_end_that_is_pushed_while_the_submit_is_recorded_is_not_missed(
    server: Server, client: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = SqliteJobStore.transition
    (known,) = server.clients

    async def end_first(
        self: SqliteJobStore, job: Job, wanted: JobStatus, *rest: Any, **kw: Any
    ) -> Job:
        if wanted is JobStatus.SUBMITTED:
            client.complete(await client.next_payload())
            # Events are handled in order: when the load is there, the end has been handled.
            client.slots = 17
            client.push(client.load_event())
            await server.eventually(lambda: known.slots == 17)
        return await original(self, job, wanted, *rest, **kw)

    # No request marks the moment between the answer to the submit and its transaction.
    monkeypatch.setattr(SqliteJobStore, "transition", end_first)
    assert await server.ended(await server.submit()) == ("Completed", "")
    assert client.requests["events"] == 1, "only a new connection brought it"


@tuned(max_fetches_per_client=1)
async def test_ends_of_more_jobs_than_are_fetched_concurrently_are_not_missed(
    server: Server, client: FakeClient
) -> None:
    """Not even those that arrive before the dispatcher has handed a job to the collector."""
    retrieve, may_answer = client.retrieve, asyncio.Event()
    collector, dispatcher = server.app[DISPATCH].collector, server.app[DISPATCH].dispatcher
    (known,) = server.clients

    def end_first(job: Job) -> None:
        if job.status is JobStatus.SUBMITTED and job.dest_id is not None:
            client.results[job.dest_id] = zip_of(out="x")
            client.report(job.dest_id, PayloadStatus.COMPLETED, push=False)
            collector.on_event(known, PayloadEvent(job.dest_id, PayloadStatus.COMPLETED))

    async def slow(request: web.Request) -> web.StreamResponse:
        await may_answer.wait()
        return await retrieve(request)

    server.app[keys.SUBMISSION].store.subscribe(end_first)
    client.instead["retrieve"] = slow
    jobs = [await server.submit() for _ in range(3)]
    for _ in jobs:
        await client.next_payload()
    await dispatcher.idle()
    may_answer.set()
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
    client.complete(payload, out="of another job")
    client.complete(await client.next_payload(), out="mine")
    assert await server.ended(job) == ("Completed", "")
    assert (await server.results(job)).read("out") == b"mine"


@tuned(fetch_retry_s=0.0)
async def test_trap_32_results_that_are_cut_off_are_never_served_and_fetched_again(
    server: Server, client: FakeClient
) -> None:
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


@tuned(fetch_retry_s=0.0)
async def test_unknown_job_is_run_again_only_after_lost_after(
    start_client: StartClient, start_server: StartServer
) -> None:
    silent, other = FakeClient(), FakeClient()
    silent.slots, other.slots = 100, 1
    server = await start_server(
        await start_client(silent), await start_client(other), LOST_AFTER="0.3s"
    )
    await server.hears_clients()
    job = await server.submit()
    payload = await silent.next_payload()
    silent.instead |= {"events": hang_up, "retrieve": hang_up, "submit": hang_up}
    silent.push(b"")
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
    assert payload in silent.payloads


async def test_trap_16_answer_of_a_lost_client_is_not_applied_to_the_next_attempt(
    start_client: StartClient, start_server: StartServer
) -> None:
    silent, other = FakeClient(), FakeClient()
    silent.slots, other.slots = 100, 1
    server = await start_server(
        await start_client(silent), await start_client(other), LOST_AFTER="0.3s"
    )
    await server.hears_clients()
    asked, gate = asyncio.Event(), asyncio.Event()

    async def payload_unknown(request: web.Request) -> web.StreamResponse:
        asked.set()
        await gate.wait()
        return await answering(404)(request)

    silent.instead["retrieve"] = payload_unknown
    job = await server.submit()
    silent.complete(await silent.next_payload())
    await asked.wait()
    silent.instead |= {"events": hang_up, "submit": hang_up}
    silent.push(b"")
    other.complete(await other.next_payload())
    # The end at the other client must arrive while the first one is still being asked, which only
    # the collector's list of running fetches shows.
    fetching = server.app[DISPATCH].collector._fetching
    await server.eventually(lambda: fetching[job])
    gate.set()
    assert await server.ended(job) == ("Completed", "")
    assert server.rows("SELECT attempt FROM jobs") == [(2,)]
    assert other.submitted.empty()


@tuned(fetch_retry_s=0.0)
async def test_client_that_answers_only_errors_keeps_no_job_for_ever(
    start_client: StartClient, start_server: StartServer
) -> None:
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


async def test_job_that_ends_while_the_server_is_down_is_fetched_after_the_restart(
    start_client: StartClient, start_server: StartServer
) -> None:
    client = FakeClient()
    url = await start_client(client)
    first = await start_server(url)
    job = await first.submit()
    payload = await client.next_payload()
    await first.until(job, "Submitted")
    await first.app.shutdown()
    await first.app.cleanup()
    client.results[payload] = zip_of(out="while it was down")
    client.report(payload, PayloadStatus.COMPLETED, push=False)
    second = await start_server(url)
    assert await second.ended(job) == ("Completed", "")
    assert client.requests["submit"] == 1


@in_folders
@tuned(fetch_retry_s=0.0)
async def test_trap_37_full_disk_at_fetch_waits_for_room(
    server: Server, client: FakeClient
) -> None:
    job = await server.submit()
    payload = await client.next_payload()
    await server.until(job, "Submitted")
    (folder,) = [p for p in (server.root / "data").iterdir() if p.name != "incoming"]
    # /dev/full is a disk without room: every write to it fails with ENOSPC.
    (folder / ".output-1").symlink_to("/dev/full")
    client.complete(payload, out="fits")
    assert await server.ended(job) == ("Completed", "")
    assert client.requests["retrieve"] == 2


async def test_payload_of_an_older_client_without_a_message_gets_one(
    server: Server, client: FakeClient
) -> None:
    job = await server.submit()
    payload = await client.next_payload()
    client.instead["partial"] = answering(404)
    client.report(payload, PayloadStatus.FAILED)
    client.payloads[payload] = Payload(payload, PayloadStatus.FAILED, message=None)
    assert await server.ended(job) == ("Failed", "The client reports Failed")


@tuned(event_stream_timeout_s=0.05)
async def test_silent_event_stream_is_opened_again(server: Server, client: FakeClient) -> None:
    await server.eventually(lambda: client.requests["events"] >= 2)
    job = await server.submit()
    client.complete(await client.next_payload())
    assert await server.ended(job) == ("Completed", "")


async def test_job_whose_results_are_packed_says_so_while_it_is_running(
    server: Server, client: FakeClient
) -> None:
    job = await server.submit()
    payload = await client.next_payload()
    client.report(payload, PayloadStatus.RUNNING)
    await server.until(job, "Running")
    for _ in range(3):
        client.report(payload, PayloadStatus.RUNNING, message="Its results are being packed")
    async with asyncio.timeout(20):
        while await server.state(job) != ("Running", "Its results are being packed"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    client.complete(payload)
    assert (await server.ended(job))[0] == "Completed"
    steps = server.rows("SELECT to_status, why FROM job_events WHERE to_status = 'Running'")
    assert steps == [
        ("Running", "run.sh is executing"),
        ("Running", "Its results are being packed"),
    ]


@tuned(fetch_retry_s=0.05)
async def test_trap_47_results_that_were_changed_on_their_way_are_fetched_again(
    server: Server, client: FakeClient
) -> None:
    async def changed(request: web.Request) -> web.Response:
        response = await client.retrieve(request)
        assert isinstance(response.body, bytes)
        if client.requests["retrieve"] <= 3:
            response.body = response.body[:35] + b"?" + response.body[36:]
        return response

    client.instead["retrieve"] = changed
    job = await server.submit()
    payload_id = await client.next_payload()
    client.complete(payload_id, out="the content")
    assert await server.ended(job) == ("Completed", "")
    assert client.requests["retrieve"] >= 4
    sha256 = hashlib.sha256(client.results[payload_id]).digest()
    assert server.rows("SELECT output_sha256 FROM jobs") == [(sha256,)]
    async with server.http.get(f"/download/{job}") as response:
        assert await response.read() == client.results[payload_id]
        assert response.headers["Repr-Digest"] == repr_digest(sha256)
    ranges = {"Range": "bytes=5-9"}
    async with server.http.get(f"/download/{job}", headers=ranges) as response:
        assert response.status == 206
        assert response.headers["Repr-Digest"] == repr_digest(sha256)


@tuned(fetch_retry_s=0.05)
async def test_results_that_are_always_changed_never_complete_a_job(
    start_server: StartServer, start_client: StartClient, client: FakeClient
) -> None:
    async def changed(request: web.Request) -> web.Response:
        response = await client.retrieve(request)
        response.headers["Repr-Digest"] = repr_digest(bytes(32))
        return response

    client.instead["retrieve"] = changed
    server = await start_server(
        await start_client(client), LOST_AFTER="1s", SERVICE_EXAMPLE_MAX_ATTEMPTS="1"
    )
    await client.connected.wait()
    job = await server.submit()
    client.complete(await client.next_payload())
    status, _ = await server.ended(job)
    assert status == "Failed"
    assert server.rows("SELECT has_output FROM jobs") == [(0,)]


@pytest.mark.parametrize("way", ["link", "events", "polled"])
@pytest.mark.parametrize("status", ["Completed", "Failed"])
async def test_time_that_a_job_ran_is_that_of_its_machine(
    start_client: StartClient, start_server: StartServer, way: str, status: str
) -> None:
    client = FakeClient()
    client.offers_link, client.run_s = way == "link", 0.0625
    server = await start_server(await start_client(client))
    await server.hears_clients()
    job = await server.submit()
    payload = await client.next_payload()
    await server.until(job, "Submitted")
    client.report(payload, PayloadStatus.RUNNING)
    await server.until(job, "Running")
    await asyncio.sleep(0.2)  # longer than it ran
    if status == "Completed":
        client.results[payload] = zip_of(out="42")
    client.report(
        payload, PayloadStatus(status), exit_code=int(status == "Failed"), push=way != "polled"
    )
    if way == "polled":
        client.go_away()
        await server.until(job, "Unknown")
        client.come_back()
    assert (await server.ended(job))[0] == status
    shown = await server.get_json(f"/jobs/{job}")
    assert shown["ran_s"] == 0.062
    assert server.rows("SELECT run_s FROM jobs") == [(0.0625,)]
    ((claimed,),) = server.rows("SELECT at FROM job_events WHERE to_status = 'Processing'")
    ((started, used),) = server.rows("SELECT started_at, usage_s FROM jobs, served")
    assert used == pytest.approx(started - claimed + 0.0625, abs=0.01)


@pytest.mark.parametrize("said", ["1e300", "nan", "-1", "x"])
async def test_time_that_no_job_can_have_run_is_not_recorded(
    server: Server, client: FakeClient, said: str
) -> None:
    job = await server.submit()
    payload = await client.next_payload()
    client.run_s = float(said) if said == "1e300" else None

    async def answer(request: web.Request) -> web.StreamResponse:
        response = await client.retrieve(request)
        response.headers["Run-Seconds"] = said
        return response

    client.instead["retrieve"] = answer
    client.complete(payload)
    assert await server.ended(job) == ("Completed", "")
    shown = await server.get_json(f"/jobs/{job}")
    age_s = (
        datetime.fromisoformat(shown["ended_at"]) - datetime.fromisoformat(shown["created_at"])
    ).total_seconds()
    assert 0 <= shown["ran_s"] <= age_s + 0.01


async def test_job_of_a_client_that_says_no_time_ran_from_its_start_to_its_end(
    server: Server, client: FakeClient
) -> None:
    job = await server.submit()
    payload = await client.next_payload()
    client.report(payload, PayloadStatus.RUNNING)
    await server.until(job, "Running")
    client.complete(payload)
    await server.ended(job)
    ((began, ended),) = server.rows("SELECT started_at, ended_at FROM jobs")
    assert (await server.get_json(f"/jobs/{job}"))["ran_s"] == round(ended - began, 3)
