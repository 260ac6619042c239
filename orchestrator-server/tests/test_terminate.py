"""Termination of jobs on request."""

import asyncio

import pytest

from fake_client import FakeClient
from job_orchestrator.common.status import PayloadStatus
from job_orchestrator.server.jobs import terminate as termination
from running_server import Server


async def terminate(server: Server, job: int) -> tuple[int, str, str]:
    async with server.http.post(f"/terminate/{job}") as response:
        answer = await response.json()
        return response.status, answer["status"], answer["message"]


async def test_trap_12_and_13_queued_job_ends_at_once_and_only_once(idle_server: Server) -> None:
    job = await idle_server.submit()
    assert await terminate(idle_server, job) == (200, "Killed", "job terminated")
    assert await terminate(idle_server, job) == (
        409,
        "Killed",
        "Job 1 has already ended: it is Killed",
    )
    assert (await terminate(idle_server, 9))[0] == 404


async def test_submitted_job_is_ended_at_its_client_and_keeps_its_output(
    server: Server, client: FakeClient
) -> None:
    job = await server.submit()
    payload = await client.next_payload()
    await server.until(job, "Submitted")
    assert (await terminate(server, job))[:2] == (200, "Killed")
    assert client.payloads[payload].status is PayloadStatus.KILLED
    await server.eventually(lambda: server.rows("SELECT has_output FROM jobs") == [(1,)])


async def test_trap_14_job_that_ended_before_the_kill_keeps_its_end(
    server: Server, client: FakeClient
) -> None:
    job = await server.submit()
    payload = await client.next_payload()
    await server.until(job, "Submitted")
    client.results[payload] = b""
    client.complete(payload)
    client.report(payload, PayloadStatus.COMPLETED, push=False)
    status, state, _ = await terminate(server, job)
    assert (status, state) == (409, "Completed")
    assert (await server.ended(job))[0] == "Completed"


async def test_trap_14_termination_while_the_job_is_being_sent_ends_it_and_runs_nothing(
    server: Server, client: FakeClient
) -> None:
    gate = client.hold_submits()
    job = await server.submit()
    await server.until(job, "Processing")
    ending = asyncio.create_task(terminate(server, job))
    await server.eventually(lambda: server.rows("SELECT kill_requested FROM jobs") == [(1,)])
    gate.set()
    assert (await ending)[:2] == (200, "Killed")
    assert client.payloads[1].status is PayloadStatus.KILLED
    assert server.rows("SELECT attempt FROM jobs") == [(1,)]


async def test_termination_that_a_hung_client_delays_is_carried_out_later(
    server: Server, client: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(termination, "TERMINATE_TIMEOUT_S", 0.05)
    gate = client.hold_submits()
    job = await server.submit()
    await server.until(job, "Processing")
    status, _, message = await terminate(server, job)
    assert status == 202
    assert message == "It will be ended as soon as its machine can be reached"
    gate.set()
    assert (await server.ended(job))[0] == "Killed"
