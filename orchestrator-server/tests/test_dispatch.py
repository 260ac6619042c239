"""Dispatch of jobs to clients that work, and to those that don't."""

import asyncio
import itertools
import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from aiohttp import web

from fake_client import Answer, FakeClient, StartClient, answering, hang_up, never
from job_orchestrator.common.messages.payloads import Payload
from job_orchestrator.common.runtime.backoff import Backoff
from job_orchestrator.common.status import PayloadStatus
from job_orchestrator.server import keys
from job_orchestrator.server.app import DISPATCH
from job_orchestrator.server.clients.http import HttpTransport
from job_orchestrator.server.dispatch.acknowledger import Acknowledger
from job_orchestrator.server.errors import ClientUnreachable
from job_orchestrator.server.model import Job
from job_orchestrator.server.store.sqlite.store import open_store
from job_orchestrator.server.tuning import ACKNOWLEDGE_BACKOFF
from running_server import Server, StartServer, tuned


async def test_job_costs_two_requests_apart_from_events(server: Server, client: FakeClient) -> None:
    job = await server.submit(**{"in/a.txt": b"1"})
    payload = await client.next_payload()
    assert client.names[payload] == {"run.sh", "in/a.txt"}
    client.report(payload, PayloadStatus.RUNNING)
    await server.until(job, "Running")
    client.complete(payload, out="42")
    assert await server.ended(job) == ("Completed", "")
    assert (await server.results(job)).read("out") == b"42"
    # The results are acknowledged later, together with those of other jobs.
    del client.requests["acknowledge"]
    assert client.requests == Counter(link=1, events=1, inventory=1, submit=1, retrieve=1)


async def test_job_is_created_and_claimed_in_one_transaction_while_a_slot_is_free(
    server: Server, client: FakeClient
) -> None:
    def transactions() -> float:
        registry = server.app[keys.METRICS].registry
        return registry.get_sample_value("jo_server_sqlite_write_seconds_count") or 0.0

    async def cost_of_a_job() -> float:
        before = transactions()
        await server.until(await server.submit(), "Processing")
        return transactions() - before

    await server.hears_clients()
    gate = client.hold_submits()
    costs = [await cost_of_a_job() for _ in range(4)]
    # Housekeeping writes once at the start of the server, which may be during one of the jobs.
    assert sorted(costs)[:3] == [1, 1, 1]
    gate.set()


@tuned(acknowledge_interval_s=1000.0)
async def test_results_of_several_jobs_are_acknowledged_in_one_request(
    server: Server, client: FakeClient
) -> None:
    await server.hears_clients()
    jobs = [await server.submit() for _ in range(3)]
    payloads = [await client.next_payload() for _ in jobs]
    for payload in payloads:
        client.complete(payload)
    for job in jobs:
        await server.ended(job)
    (known,) = server.clients
    await server.eventually(lambda: known.unacknowledged == set(payloads))
    async with open_store(server.root / "db.sqlite") as store:
        await Acknowledger(known, store, ACKNOWLEDGE_BACKOFF).run_pass()
    assert client.acknowledged == set(payloads)
    assert client.requests["acknowledge"] == 1


async def test_trap_26_requests_to_a_client_share_their_connections(
    server: Server, client: FakeClient
) -> None:
    original, connections = client.submit, set()

    async def note(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        connections.add(request.transport.get_extra_info("peername"))
        return await original(request)

    client.instead["submit"] = note
    transports = [each.transport for each in server.clients]
    for _ in range(6):
        job = await server.submit()
        client.complete(await client.next_payload())
        await server.ended(job)
    assert len(connections) <= 3, "one for each kind of request that may run concurrently"
    assert transports == [each.transport for each in server.clients]


async def test_trap_17_submit_whose_answer_was_lost_is_repeated_with_its_key(
    server: Server, client: FakeClient
) -> None:
    original = client.submit

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


async def test_trap_21_client_that_refuses_is_left_and_the_other_one_used(
    start_client: StartClient, start_server: StartServer
) -> None:
    bad, good = FakeClient(), FakeClient()
    bad.slots, good.slots = 100, 1
    bad.instead["submit"] = answering(500)
    server = await start_server(await start_client(bad), await start_client(good))
    await server.hears_clients()
    job = await server.submit()
    good.complete(await good.next_payload())
    assert await server.ended(job) == ("Completed", "")
    assert bad.requests["submit"] == 1


@tuned(client_backoff=Backoff((0.0,)))
async def test_job_whose_attempts_are_used_up_fails_with_the_reason(
    start_client: StartClient, start_server: StartServer
) -> None:
    client = FakeClient()
    client.instead["submit"] = answering(500, '{"message": "out of order"}')
    server = await start_server(await start_client(client))
    status, message = await server.ended(await server.submit())
    assert status == "Failed"
    assert message.startswith(
        "The machine it was on failed or could not be reached. "
        "It has been tried 3 times, and is not tried again (http://127.0.0.1:"
    )
    assert message.endswith("answered 500: out of order)")
    assert client.requests["submit"] == 3


async def test_refusal_of_the_files_fails_the_job_without_a_second_attempt(
    server: Server, client: FakeClient
) -> None:
    client.instead["submit"] = answering(400, '{"message": "Invalid file name"}')
    status, message = await server.ended(await server.submit())
    assert (status, client.requests["submit"]) == ("Failed", 1)
    assert "Invalid file name" in message


@tuned(client_backoff=Backoff((0.0,)))
@pytest.mark.parametrize("status", [503, 507])
async def test_busy_client_delays_a_job_and_costs_no_attempt(
    server: Server, client: FakeClient, status: int
) -> None:
    answers = iter([answering(status)] * 5)
    original = client.submit

    async def busy_at_first(request: web.Request) -> web.StreamResponse:
        return await next(answers, original)(request)

    client.instead["submit"] = busy_at_first
    job = await server.submit()
    client.complete(await client.next_payload())
    assert await server.ended(job) == ("Completed", "")
    assert server.rows("SELECT failures FROM jobs") == [(0,)]


async def test_trap_22_draining_client_gets_no_jobs_and_what_it_gives_back_runs_elsewhere(
    start_client: StartClient, start_server: StartServer
) -> None:
    stopping, other = FakeClient(), FakeClient()
    other.slots = 1
    server = await start_server(await start_client(stopping), await start_client(other))
    await server.hears_clients()
    job = await server.submit()
    payload = await stopping.next_payload()
    await server.until(job, "Submitted")
    stopping.drain()
    stopping.forget(payload)
    other.complete(await other.next_payload())
    assert await server.ended(job) == ("Completed", "")
    assert stopping.requests["submit"] == 1
    # An administrator's stop of the client is not a failure of the job.
    assert server.rows("SELECT attempt, failures FROM jobs") == [(2, 0)]


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


@pytest.mark.parametrize("answer", [answering(200, "[]"), answering(200, "<html>", "text/html")])
async def test_nonsense_from_a_client_counts_as_a_failed_attempt_after_lost_after(
    start_client: StartClient,
    start_server: StartServer,
    answer: Answer,
) -> None:
    client = FakeClient()
    client.instead["submit"] = answer
    server = await start_server(
        await start_client(client), SERVICE_EXAMPLE_MAX_ATTEMPTS="1", LOST_AFTER="0.1s"
    )
    status, message = await server.ended(await server.submit())
    assert status == "Failed"
    assert "answered with not a payload" in message


@tuned(client_backoff=Backoff((1000.0,)))
async def test_concurrent_failures_of_several_jobs_are_one_failure_of_the_client(
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
    (known,) = server.clients
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
    decisions = [
        record.getMessage()
        for record in caplog.records
        if record.name.endswith("dispatcher") and record.getMessage().startswith("User ")
    ]
    assert "User 1 slot available, dispatching job 1 to service 'example'" in decisions
    assert any(
        line.startswith("User 1 has 2/2 jobs running for service 'example', job ")
        for line in decisions
    )
    assert len(decisions) == len(set(decisions)), "a decision was logged twice"


async def test_delivery_that_ends_during_the_search_for_interrupted_ones_is_not_repeated(
    server: Server, client: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, dispatcher = server.app[keys.SUBMISSION].store, server.app[DISPATCH].dispatcher
    original = store.processing
    stale = asyncio.Event()

    async def answer_late() -> Sequence[Job]:
        jobs = await original()
        if jobs and not stale.is_set():
            gate.set()
            await server.until(jobs[0].id, "Submitted")
            stale.set()
        return jobs

    # Only a query that takes longer than the delivery shows the race.
    monkeypatch.setattr(store, "processing", answer_late)
    gate = client.hold_submits()
    job = await server.submit()
    await server.until(job, "Processing")
    await dispatcher.resume_interrupted()
    await dispatcher.idle()
    assert stale.is_set()
    assert client.requests["submit"] == 1
    client.complete(await client.next_payload())
    assert await server.ended(job) == ("Completed", "")


async def test_defect_of_the_server_costs_an_attempt_and_is_not_repeated_for_ever(
    start_client: StartClient, start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object, **__: object) -> Payload:
        raise ValueError("no such thing")

    server = await start_server(await start_client(FakeClient()), SERVICE_EXAMPLE_MAX_ATTEMPTS="1")
    (known,) = server.clients
    # No answer of a client makes the transport raise anything but a ClientError.
    monkeypatch.setattr(known.transport, "submit", broken)
    ended = await server.ended(await server.submit())
    reason = "It could not be sent to a machine. It is not tried again (no such thing)"
    assert ended == ("Failed", reason)


async def test_trap_17_job_that_was_being_sent_when_the_server_died_is_not_sent_elsewhere(
    start_client: StartClient, start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, other = FakeClient(), FakeClient()
    client.slots = 100
    accept = client.submit

    async def answer_too_late(request: web.Request) -> web.StreamResponse:
        await accept(request)
        return await never(request)

    client.instead["submit"] = answer_too_late
    urls = await start_client(client), await start_client(other)
    first = await start_server(*urls)
    await first.hears_clients()
    job = await first.submit()
    payload = await client.next_payload()
    await first.app.shutdown()
    await first.app.cleanup()

    submit, calls = HttpTransport.submit, itertools.count()

    async def unreachable_at_first(self: HttpTransport, *args: Any, **kwargs: Any) -> Payload:
        if next(calls) == 0:
            raise ClientUnreachable("it starts as well")
        return await submit(self, *args, **kwargs)

    # The second server resumes the delivery while it starts, before a test can reach its parts.
    monkeypatch.setattr(HttpTransport, "submit", unreachable_at_first)
    del client.instead["submit"]
    second = await start_server(*urls)
    await second.until(job, "Submitted")
    client.complete(payload)
    assert await second.ended(job) == ("Completed", "")
    assert (len(client.payloads), len(other.payloads)) == (1, 0)
    assert second.rows("SELECT attempt, failures FROM jobs") == [(1, 0)]
