"""Pauses of services and users, and changes of queued jobs."""

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from fake_client import FakeClient, StartClient
from job_orchestrator.server.auth.token_file import create_token
from job_orchestrator.server.store.base import JobStore
from job_orchestrator.server.store.queue import Pauses
from running_server import Server, StartServer, tuned
from stores import OpenStore, claim


async def call(server: Server, method: str, path: str, body: Any = None, **headers: str) -> Any:
    """Send JSON; return status and JSON of the answer."""
    async with server.http.request(method, path, json=body, headers=headers) as response:
        return response.status, await response.json()


async def test_pauses_survive_a_restart(open_job_store: OpenStore) -> None:
    async with open_job_store() as store:
        await store.queue.pause(service="x")
        await store.queue.pause(service="y", user_id=-7)
        await store.queue.resume(service="x")
    async with open_job_store() as store:
        assert await store.queue.pauses() == Pauses(frozenset({"y"}), frozenset({-7}))


async def test_held_job_is_not_claimed_and_not_ahead_of_others(store: JobStore) -> None:
    jobs = [await store.create(f"u{number}", 1, "x") for number in range(3)]
    held = await store.change_queued(jobs[0].id, held=True)
    assert held.held
    assert await store.queue.ahead(jobs[2]) == 1
    assert [job.id for job in await claim(store, 2)] == [2, 3]
    assert await claim(store, 2) == []
    await store.change_queued(jobs[0].id, held=False)
    assert [job.id for job in await claim(store, 2)] == [1]


async def test_changed_priority_moves_a_job_in_the_queue(store: JobStore) -> None:
    jobs = [await store.create(f"u{number}", 1, "x") for number in range(3)]
    await store.change_queued(jobs[2].id, priority=5)
    assert [job.id for job in await claim(store, 3)] == [3, 1, 2]


@tuned(dispatch_interval_s=0.05)
async def test_paused_service_starts_no_job_until_it_is_resumed(
    server: Server, client: FakeClient
) -> None:
    await server.hears_clients()
    before = await server.submit(user=1)
    await server.until(before, "Submitted")
    answer = await call(server, "POST", "/pause", {"service": "Example"})
    assert answer == (200, {"services": ["example"], "users": []})
    (service,) = (await server.get_json("/services"))["services"]
    assert service["paused"]
    job = await server.submit(user=1)
    shown = await server.get_json(f"/jobs/{job}")
    assert shown["message"] == "An administrator has paused the service example"
    assert shown["queue"]["estimated_wait_s"] is None
    client.complete(await client.next_payload())
    assert (await server.ended(before))[0] == "Completed", "running jobs go on"
    assert (await server.state(job))[0] == "Queued"
    assert await call(server, "POST", "/resume", {"service": "example"}) == (
        200,
        {"services": [], "users": []},
    )
    await server.until(job, "Submitted")


@tuned(dispatch_interval_s=0.05)
async def test_paused_user_waits_while_others_start(server: Server) -> None:
    await server.hears_clients()
    await call(server, "POST", "/pause", {"user_id": 7})
    job = await server.submit(user=7)
    await server.until(await server.submit(user=8), "Submitted")
    assert await server.state(job) == (
        "Queued",
        "Next in line; An administrator has paused the jobs of this user",
    )
    assert await call(server, "GET", "/pauses") == (200, {"services": [], "users": [7]})
    await call(server, "POST", "/resume", {"user_id": 7})
    await server.until(job, "Submitted")


@tuned(dispatch_interval_s=0.05)
async def test_held_job_starts_when_it_is_released(server: Server) -> None:
    await call(server, "POST", "/pause", {"service": "example"})
    job = await server.submit(user=1)
    status, shown = await call(server, "PATCH", f"/jobs/{job}", {"held": True, "priority": 3})
    assert (status, shown["held"], shown["priority"]) == (200, True, 3)
    assert shown["message"] == "It is on hold until it is released"
    await call(server, "POST", "/resume", {"service": "example"})
    await server.until(await server.submit(user=1), "Submitted")
    assert (await server.state(job))[0] == "Queued"
    await call(server, "PATCH", f"/jobs/{job}", {"held": False})
    await server.until(job, "Submitted")
    status, answer = await call(server, "PATCH", f"/jobs/{job}", {"held": True})
    assert status == 409
    assert answer["message"] == f"Job {job} is not in the queue any more: it is Submitted"


@pytest.mark.parametrize(
    ("path", "method", "body", "status"),
    [
        ("/pause", "POST", {"service": "unknown"}, 404),
        ("/pause", "POST", {}, 400),
        ("/pause", "POST", {"user": 7}, 400),
        ("/pause", "POST", [], 400),
        ("/jobs/1", "PATCH", {"priority": 101}, 400),
        ("/jobs/1", "PATCH", {"status": "Completed"}, 400),
        ("/jobs/9", "PATCH", {"held": True}, 404),
    ],
)
async def test_request_that_makes_no_sense_is_refused(
    idle_server: Server, path: str, method: str, body: Any, status: int
) -> None:
    await idle_server.submit()
    assert (await call(idle_server, method, path, body))[0] == status


async def test_users_change_only_their_own_jobs_and_pause_nothing(
    start_client: StartClient, start_server: StartServer, client: FakeClient, tmp_path: Path
) -> None:
    file = tmp_path / "tokens"
    tokens = [
        await asyncio.to_thread(create_token, file, user_id=n, label="", valid_s=None)
        for n in (7, 8)
    ]
    own, other = [{"Authorization": f"Bearer {text}"} for text, _ in tokens]
    client.slots = 0
    server = await start_server(
        await start_client(client), API_TOKENS_FILE=str(file), MAX_PRIORITY="5"
    )
    form = {"service": "example"}
    data = aiohttp.FormData(form)
    data.add_field("file", b"exit 0", filename="run.sh")
    status, answer = await server.post(data, **own)
    assert status == 201
    path = f"/jobs/{answer['id']}"
    assert (await call(server, "PATCH", path, {"held": True}, **other))[0] == 404
    assert (await call(server, "PATCH", path, {"held": True}, **own))[0] == 200
    assert (await call(server, "PATCH", path, {"priority": 5}, **own))[0] == 200
    assert (await call(server, "PATCH", path, {"priority": 6}, **own))[0] == 400
    assert (await call(server, "POST", "/pause", {"user_id": 7}, **own))[0] == 403
