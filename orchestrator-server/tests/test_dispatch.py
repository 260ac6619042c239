"""Sender, getter and watcher against clients that behave, and that don't."""

import asyncio
import io
import logging
import zipfile
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

import pytest
from aiohttp import web

from fake_client import FakeClient, answering, hang_up, never, zip_of
from orchestrator_common.models import Payload
from orchestrator_common.status import PayloadStatus
from orchestrator_server import client_api, client_pool, keys
from orchestrator_server.app import BACKGROUND
from orchestrator_server.background import getter as getter_module
from orchestrator_server.store import Job, JobStore
from running_server import Server, StartServer

StartClient = Callable[[FakeClient], Awaitable[str]]


async def _results(server: Server, job: int, what: str = "download") -> zipfile.ZipFile:
    async with server.http.get(f"/{what}/{job}") as response:
        assert response.status == 200
        assert response.content_type == "application/zip"
        return zipfile.ZipFile(io.BytesIO(await response.read()))


async def test_job_costs_two_requests_beside_the_events(server: Server, client: FakeClient) -> None:
    job = await server.submit(**{"in/a.txt": b"1"})
    payload = await client.next_payload()
    assert client.names[payload] == {"run.sh", "in/a.txt"}
    client.report(payload, PayloadStatus.RUNNING)
    await server.until(job, "Running")
    client.complete(payload, out="42")
    assert await server.ended(job) == ("Completed", "")
    assert (await _results(server, job)).read("out") == b"42"
    await server.eventually(lambda: client.requests["forget"] == 1)
    assert client.requests == Counter(events=1, submit=1, retrieve=1, forget=1)


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
    asked, original = asyncio.Event(), JobStore.by_payload

    async def answers_late(self: JobStore, client_url: str, dest_id: int) -> Job | None:
        job = await original(self, client_url, dest_id)
        asked.set()
        if job is None:
            await server.until(1, "Submitted")
        return job

    monkeypatch.setattr(JobStore, "by_payload", answers_late)
    submit = client._submit

    async def end_first(request: web.Request) -> web.StreamResponse:
        response = await submit(request)
        client.complete(await client.next_payload())
        await asked.wait()
        return response

    client.instead["submit"] = end_first
    assert await server.ended(await server.submit()) == ("Completed", "")
    assert client.requests["events"] == 1, "only a new connection brought it"


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
    assert (await _results(server, job, "download_partial")).read("partial") == b"so far"
    assert server.rows("SELECT exit_code, has_output FROM jobs") == [(7, 1)]


async def test_trap_17_submit_whose_answer_was_lost_is_repeated_with_its_key(
    server: Server, client: FakeClient
) -> None:
    original = client._submit

    async def lose_the_first(request: web.Request) -> web.Response:
        response = await original(request)
        if client.requests["submit"] == 1:
            await hang_up(request)
        return response

    client.instead["submit"] = lose_the_first
    job = await server.submit()
    client.complete(await client.next_payload())
    assert await server.ended(job) == ("Completed", "")
    assert len(client.payloads) == 1
    assert client.requests["submit"] == 2
    assert server.rows("SELECT attempt, failures FROM jobs") == [(1, 0)]


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
    assert (await _results(server, job)).read("out") == b"mine"


async def test_trap_21_client_that_refuses_is_left_and_the_other_one_used(
    start_client: StartClient, start_server: StartServer
) -> None:
    bad, good = FakeClient(), FakeClient()
    bad.slots, good.slots = 100, 1
    bad.instead["submit"] = answering(500)
    server = await start_server(await start_client(bad), await start_client(good))
    await asyncio.gather(bad.connected.wait(), good.connected.wait())
    await server.eventually(lambda: True)
    job = await server.submit()
    good.complete(await good.next_payload())
    assert await server.ended(job) == ("Completed", "")


async def test_job_fails_with_the_reason_after_its_attempts(
    start_client: StartClient, start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_pool, "BACK_OFF_S", (0.0,))
    client = FakeClient()
    client.instead["submit"] = answering(500, '{"message": "out of order"}')
    server = await start_server(await start_client(client))
    status, message = await server.ended(await server.submit())
    assert status == "Failed"
    assert message.endswith("answered 500: out of order")
    assert client.requests["submit"] == 3


async def test_refusal_of_the_files_fails_the_job_at_once(
    server: Server, client: FakeClient
) -> None:
    client.instead["submit"] = answering(400, '{"message": "Invalid file name"}')
    status, message = await server.ended(await server.submit())
    assert (status, client.requests["submit"]) == ("Failed", 1)
    assert "Invalid file name" in message


@pytest.mark.parametrize("status", [503, 507])
async def test_busy_client_costs_a_wait_and_no_attempt(
    server: Server, client: FakeClient, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_pool, "BACK_OFF_S", (0.0,))
    answers = iter([answering(status)] * 5)
    original = client._submit

    async def busy_at_first(request: web.Request) -> web.StreamResponse:
        return await next(answers, original)(request)

    client.instead["submit"] = busy_at_first
    job = await server.submit()
    client.complete(await client.next_payload())
    assert await server.ended(job) == ("Completed", "")
    assert server.rows("SELECT failures FROM jobs") == [(0,)]


async def test_trap_25_hung_client_delays_no_other(
    start_client: StartClient, start_server: StartServer
) -> None:
    hung, good = FakeClient(), FakeClient()
    hung.instead["submit"] = never
    url = await start_client(good)
    server = await start_server(
        await start_client(hung),
        SERVICE_OTHER_UPLOAD_URL=url,
        SERVICE_OTHER_DOWNLOAD_URL=url,
    )
    for _ in range(5):
        await server.submit(service="example")
    await server.eventually(lambda: hung.requests["submit"] == 5)
    job = await server.submit(service="other")
    good.complete(await good.next_payload())
    assert await server.ended(job) == ("Completed", "")
    assert server.rows("SELECT count(*) FROM jobs WHERE status = 'Processing'") == [(5,)]


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
    assert (await _results(server, job)).read("out") == b"x" * 1000
    assert not [name for name in server.folders() if "/.output" in name]


@pytest.mark.parametrize("answer", [answering(200, "[]"), answering(200, "<html>", "text/html")])
async def test_nonsense_from_a_client_counts_as_a_failed_attempt(
    start_client: StartClient,
    start_server: StartServer,
    answer: Callable[[web.Request], Awaitable[web.StreamResponse]],
) -> None:
    client = FakeClient()
    client.instead["submit"] = answer
    server = await start_server(await start_client(client), SERVICE_EXAMPLE_MAX_ATTEMPTS="1")
    status, message = await server.ended(await server.submit())
    assert status == "Failed"
    assert "answered with not a payload" in message


async def test_unknown_job_is_run_again_only_after_lost_after(
    start_client: StartClient, start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(getter_module, "RETRY_S", 0.0)
    gone, other = FakeClient(), FakeClient()
    gone.slots, other.slots = 100, 1
    server = await start_server(
        await start_client(gone), await start_client(other), LOST_AFTER="0.3s"
    )
    await asyncio.gather(gone.connected.wait(), other.connected.wait())
    await server.eventually(lambda: True)
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


async def test_failure_that_several_jobs_meet_at_once_is_one_failure(
    start_client: StartClient, start_server: StartServer
) -> None:
    client = FakeClient()
    gate = asyncio.Event()

    async def fail_together(request: web.Request) -> web.StreamResponse:
        await gate.wait()
        return await answering(500)(request)

    client.instead["submit"] = fail_together
    server = await start_server(await start_client(client))
    for _ in range(5):
        await server.submit()
    await server.eventually(lambda: client.requests["submit"] == 5)
    gate.set()
    count = "SELECT count(*) FROM jobs WHERE status = 'Queued'"
    await server.eventually(lambda: server.rows(count) == [(5,)])
    (known,) = server.app[keys.SUBMISSION].pool
    assert known.failures == 1


async def test_trap_23_quotas_hold_at_every_instant_and_are_logged(
    start_client: StartClient, start_server: StartServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    client = FakeClient()
    server = await start_server(
        await start_client(client),
        SERVICE_EXAMPLE_RUNS_PER_USER="2",
        SERVICE_EXAMPLE_MAX_RUNS="3",
    )
    jobs = [await server.submit(user=user) for user in (1, 1, 1, 1, 2, 2)]
    counts = "SELECT user_id, count(*) FROM jobs WHERE status IN {} GROUP BY 1"
    active = counts.format("('Processing', 'Submitted', 'Running', 'Unknown')")
    for _ in jobs:
        payload = await client.next_payload()
        by_user = dict(server.rows(active))
        assert max(by_user.values()) <= 2
        assert sum(by_user.values()) <= 3
        client.complete(payload)
    for job in jobs:
        assert await server.ended(job) == ("Completed", "")
    said = [r.getMessage() for r in caplog.records if r.name.endswith("quota_log")]
    assert "User 1 slot available, dispatching job 1 to service 'example'" in said
    assert any(
        line.startswith("User 1 has 2/2 jobs running for service 'example', job ") for line in said
    )
    assert len(said) == len(set(said)), "a decision was logged twice"


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


async def test_dispatch_that_ends_while_a_pass_looks_for_broken_ones_is_not_repeated(
    server: Server, client: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = JobStore.processing
    stale = asyncio.Event()

    async def answers_late(self: JobStore) -> Sequence[Job]:
        jobs = await original(self)
        if jobs and not stale.is_set():
            await server.until(jobs[0].id, "Submitted")
            stale.set()
        return jobs

    monkeypatch.setattr(JobStore, "processing", answers_late)
    gate, submit = asyncio.Event(), client._submit

    async def slow(request: web.Request) -> web.StreamResponse:
        await gate.wait()
        return await submit(request)

    client.instead["submit"] = slow
    job = await server.submit()
    await server.until(job, "Processing")
    background = server.app[BACKGROUND]
    passing = asyncio.create_task(background._sender.run_pass())
    gate.set()
    await passing
    await background._sender.idle()
    assert stale.is_set()
    assert client.requests["submit"] == 1
    client.complete(await client.next_payload())
    assert await server.ended(job) == ("Completed", "")


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
