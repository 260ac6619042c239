"""Every call about a job in every state: the table in docs/job-lifecycle.md."""

import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from fake_client import FakeClient, StartClient, answering, hang_up
from job_orchestrator.common.status import JobStatus, PayloadStatus
from job_orchestrator.server import keys
from job_orchestrator.server.jobs import terminate as termination
from job_orchestrator.server.model import Job
from running_server import Server, StartServer

PAGE = Path(__file__).parents[2] / "docs" / "job-lifecycle.md"
CALLS = (
    "GET /download",
    "GET /download_partial",
    "GET /jobs/{id}",
    "GET /jobs/{id}/logs",
    "GET /jobs/{id}/files",
    "POST /terminate",
)
KINDS = {"application/zip": "ZIP", "text/plain": "output"}
OUTPUT = {"out": "x", ".orchestrator/stdout.txt": "one\n"}

Reach = Callable[[Server, FakeClient], Awaitable[int]]


def documented() -> dict[str, list[str]]:
    """Return the answers to the calls, by state."""
    section = PAGE.read_text("utf-8").partition("## Calls in each state")[2].partition("\n## ")[0]
    header, _, *rows = re.findall(r"^\| (.+) \|$", section, re.MULTILINE)
    assert re.findall(r"`(.+?)`", header) == list(CALLS)
    cells = [row.split(" | ") for row in rows]
    return {state: answers for state, *answers in cells}


async def queued(server: Server, client: FakeClient) -> int:
    await submitted(server, client)
    return await server.submit()


async def processing(server: Server, client: FakeClient) -> int:
    client.hold_submits()
    job = await server.submit()
    await server.until(job, "Processing")
    return job


async def submitted(server: Server, client: FakeClient) -> int:
    job = await server.submit()
    await client.next_payload()
    await server.until(job, "Submitted")
    return job


async def running(server: Server, client: FakeClient) -> int:
    job = await submitted(server, client)
    client.report(1, PayloadStatus.RUNNING)
    await server.until(job, "Running")
    return job


async def unknown(server: Server, client: FakeClient) -> int:
    job = await running(server, client)
    for call in ("kill", "kill_key", "partial", "logs", "retrieve", "load"):
        client.instead[call] = hang_up
    client.go_away()
    await server.until(job, "Unknown")
    return job


async def completed(server: Server, client: FakeClient) -> int:
    job = await running(server, client)
    client.complete(1, **OUTPUT)
    await server.until(job, "Completed")
    return job


async def failed(server: Server, client: FakeClient) -> int:
    job = await running(server, client)
    client.report(1, PayloadStatus.FAILED)
    await server.until(job, "Failed")
    return job


async def invalid(server: Server, client: FakeClient) -> int:
    job = await submitted(server, client)
    client.report(1, PayloadStatus.INVALID)
    await server.until(job, "Invalid")
    return job


async def killed(server: Server, client: FakeClient) -> int:
    job = await running(server, client)
    async with server.http.post(f"/terminate/{job}") as response:
        assert response.status == 200
    await server.eventually(lambda: server.rows("SELECT has_output FROM jobs") == [(1,)])
    return job


async def killed_in_the_queue(server: Server, client: FakeClient) -> int:
    job = await queued(server, client)
    async with server.http.post(f"/terminate/{job}") as response:
        assert response.status == 200
    return job


async def cleaned(server: Server, client: FakeClient) -> int:
    job = await completed(server, client)
    store = server.app[keys.JOB_LOGS].store
    await store.transition(await store.get(job), JobStatus.CLEANED, "Removed")
    return job


@pytest.fixture
async def server(
    client: FakeClient, start_client: StartClient, start_server: StartServer
) -> Server:
    server = await start_server(await start_client(client), SERVICE_EXAMPLE_RUNS_PER_USER="1")
    await client.connected.wait()
    return server


STATES: dict[str, Reach] = {
    "`Queued`, also for a quota or without a machine": queued,
    "`Processing`": processing,
    "`Submitted`": submitted,
    "`Running`": running,
    "`Unknown`: its machine can't be reached": unknown,
    "`Completed`": completed,
    "`Failed`, `Killed` with output": failed,
    "`Killed` while it ran": killed,
    "`Killed` in the queue": killed_in_the_queue,
    "`Invalid`": invalid,
    "`Cleaned`": cleaned,
}


def test_every_state_is_documented() -> None:
    assert list(documented()) == list(STATES)


async def answer_to(server: Server, call: str, job: int) -> str:
    """Return status and kind of an answer. Errors must name the job and its state."""
    method, _, path = call.partition(" ")
    path = path.format(id=job) if "{id}" in path else f"{path}/{job}"
    before: Job = await server.app[keys.JOB_LOGS].store.get(job)
    async with server.http.request(method, path) as response:
        kind = KINDS.get(response.content_type, "")
        if not kind:
            answer = await response.json()
            if "message" in answer:
                assert (answer["id"], answer["status"]) in (
                    (job, before.status),
                    (job, "Killed"),
                ), answer
        return f"{response.status} {kind}".strip()


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("call", CALLS)
async def test_call_is_answered_as_documented(
    server: Server,
    client: FakeClient,
    state: str,
    call: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(termination, "TERMINATE_TIMEOUT_S", 0.05)
    client.instead["logs"] = answering(200, "one\n", "text/plain")
    job = await STATES[state](server, client)
    answer = await answer_to(server, call, job)
    assert answer == documented()[state][CALLS.index(call)]


async def test_request_to_terminate_is_shown_until_the_machine_is_back(
    server: Server, client: FakeClient
) -> None:
    job = await unknown(server, client)
    async with server.http.post(f"/terminate/{job}") as response:
        assert response.status == 202
        pending = await response.json()
    assert pending == {
        "id": job,
        "status": "Unknown",
        "message": "It will be ended as soon as its machine can be reached",
    }
    for path in (f"/jobs/{job}", f"/download/{job}"):
        async with server.http.get(path) as response:
            assert pending["message"] in (await response.json())["message"]
    for call in ("kill", "kill_key", "partial", "retrieve", "load"):
        client.instead.pop(call, None)
    client.come_back()
    assert (await server.ended(job))[0] == "Killed"
