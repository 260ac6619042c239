"""Every call about a job in every state: the table in docs/job-lifecycle.md."""

import re
from pathlib import Path

import pytest

from fake_client import FakeClient, StartClient, answering
from job_orchestrator.server import keys
from job_orchestrator.server.jobs import terminate as termination
from job_orchestrator.server.model import Job
from job_states import STATES, unknown
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


def documented() -> dict[str, list[str]]:
    """Return the answers to the calls, by state."""
    section = PAGE.read_text("utf-8").partition("## Calls in each state")[2].partition("\n##")[0]
    header, _, *rows = re.findall(r"^\| (.+) \|$", section, re.MULTILINE)
    assert re.findall(r"`(.+?)`", header) == list(CALLS)
    cells = [row.split(" | ") for row in rows]
    return {state: answers for state, *answers in cells}


@pytest.fixture
async def server(
    client: FakeClient, start_client: StartClient, start_server: StartServer
) -> Server:
    server = await start_server(await start_client(client), SERVICE_EXAMPLE_RUNS_PER_USER="1")
    await client.connected.wait()
    return server


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
