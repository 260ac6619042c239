"""Explanations for administrators: all figures on which the start of a queued job depends."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp

from fake_client import FakeClient, StartClient
from job_orchestrator.common.messages.resources import Resources
from job_orchestrator.server.auth.token_file import create_token
from running_server import Server, StartServer

GB = 10**9


async def submit(server: Server, user: int = 1, **fields: str) -> int:
    form = aiohttp.FormData({"user_id": str(user), "service": "example", **fields})
    form.add_field("file", b"exit 0\n", filename="run.sh")
    status, answer = await server.post(form)
    assert status == 201, answer
    return int(answer["id"])


async def explain(server: Server, job: int) -> Any:
    return await server.get_json(f"/jobs/{job}/explanation")


def limit(found: Any, kind: str) -> Any:
    (one,) = (each for each in found["limits"] if each["kind"] == kind)
    return one


def order(found: Any) -> Sequence[tuple[int, int | None, int | None]]:
    return [(user["user_id"], user["place"], user["next"]) for user in found["users"]]


async def running(server: Server, client: FakeClient, user: int = 1, **fields: str) -> int:
    job = await submit(server, user, **fields)
    payload = await client.next_payload()
    assert payload
    await server.until(job, "Submitted")
    return job


async def test_limits_of_every_kind_are_listed_with_their_use(
    start_client: StartClient, start_server: StartServer, client: FakeClient, tmp_path: Path
) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text("[groups.course]\nmembers = [1, 2]\nweight = 3\nmax_runs = 2\n")
    server = await start_server(
        await start_client(client),
        SERVICE_EXAMPLE_RUNS_PER_USER="1",
        SERVICE_EXAMPLE_RUNS_PER_USER_BURST="3",
        SERVICE_EXAMPLE_MAX_RUNS="8",
        MAX_RUNS_PER_USER="4",
        TOTAL_MAX_RUNS="9",
        JOBS_PER_HOUR="60",
        POLICY_FILE=str(policy),
    )
    await server.hears_clients()
    await running(server, client, 1)
    await running(server, client, 2)
    await running(server, client, 3)
    job = await submit(server, 1)
    found = await explain(server, job)
    limits = {
        each["kind"]: (each["used"], each["limit"], each["reached"]) for each in found["limits"]
    }
    assert limits.pop("rate")[1:] == (60, False)
    assert limits == {
        "user_and_service": (1, 1, True),
        "borrowing": (1, 3, False),
        "user": (1, 4, False),
        "group": (2, 2, True),
        "service": (3, 8, False),
        "total": (3, 9, False),
    }
    assert limit(found, "group")["name"] == "course"
    assert found["reason"] == "2 jobs of the group course are active, of at most 2"
    assert (found["starts_now"], found["place"], found["policy"]) == (False, 1, "fair")
    assert [(user["user_id"], user["weight"], user["active"]) for user in found["users"]] == [
        (1, 3.0, 1)
    ]
    assert [each["obstacle"] for each in found["clients"]] == [""]


async def test_users_are_in_the_order_in_which_the_policy_serves_them(
    start_client: StartClient, start_server: StartServer, client: FakeClient
) -> None:
    client.slots = 2
    server = await start_server(await start_client(client), SERVICE_EXAMPLE_RUNS_PER_USER="2")
    await server.hears_clients()
    await running(server, client, 1)
    await running(server, client, 1)
    first = await submit(server, 1)
    second = await submit(server, 2, priority="1")
    third = await submit(server, 2, priority="2")
    found = await explain(server, first)
    assert order(found) == [(2, 1, third), (1, 3, first)]
    assert [(user["share"], user["queued"]) for user in found["users"]] == [(0.5, 2), (0.5, 1)]
    assert (await explain(server, second))["place"] == 2
    (of_client,) = found["clients"]
    assert (of_client["slots"], of_client["free"]) == (2, 0)
    assert of_client["obstacle"] == "No slot is free"


async def test_each_client_has_the_reason_why_it_does_not_take_the_job(
    start_client: StartClient, start_server: StartServer
) -> None:
    offers = (Resources(2.0, GB, 0), Resources(8.0, 8 * GB, 0), Resources(8.0, 8 * GB, 0))
    clients = [FakeClient() for _ in offers]
    for each, offer in zip(clients, offers, strict=True):
        each.resources = offer
    urls = [await start_client(each) for each in clients]
    server = await start_server(*urls)
    await server.hears_clients()
    await submit(server, cpus="8")
    await submit(server, cpus="8")
    for each in clients[1:]:
        await each.next_payload()
    wide = await submit(server, cpus="6")
    clients[2].drain()
    await server.eventually(lambda: any(client.draining for client in server.clients))
    found = await explain(server, wide)
    small, busy, draining = (each["obstacle"] for each in found["clients"])
    assert small == "It has 2 CPUs, 1 GB of memory, and the job asks for 6 CPUs"
    assert busy == "Of its resources, 8 GB of memory are free"
    assert draining.endswith("is stopping and takes no new jobs")
    assert [each["kept_for"] for each in found["clients"]].count(wide) == 1
    assert found["starts_now"] is False


async def test_paused_and_held_jobs_and_jobs_that_ended_have_a_reason(
    server: Server, client: FakeClient
) -> None:
    await server.hears_clients()
    ended = await submit(server)
    client.complete(await client.next_payload())
    await server.ended(ended)
    found = await explain(server, ended)
    assert (found["status"], found["limits"], found["place"]) == ("Completed", [], None)
    async with server.http.post("/pause", json={"user_id": 1}):
        pass
    job = await submit(server)
    found = await explain(server, job)
    assert found["reason"] == "An administrator has paused the jobs of this user"
    assert found["users"][0]["paused"] is True
    async with server.http.patch(f"/jobs/{job}", json={"held": True}):
        pass
    found = await explain(server, job)
    assert (found["reason"], found["users"]) == ("It is on hold until it is released", [])
    assert limit(found, "user_and_service")["used"] == 0


async def test_explanation_is_for_administrators_only(
    start_client: StartClient, start_server: StartServer, client: FakeClient, tmp_path: Path
) -> None:
    file = tmp_path / "tokens"
    user, admin = [
        (await asyncio.to_thread(create_token, file, user_id=of, label="", valid_s=None))[0]
        for of in (7, None)
    ]
    server = await start_server(await start_client(client), API_TOKENS_FILE=str(file))

    async def call(token: str, path: str) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {token}"}
        async with server.http.get(path, headers=headers) as response:
            return response.status, json.loads(await response.read())

    form = aiohttp.FormData({"user_id": "7", "service": "example"})
    form.add_field("file", b"exit 0\n", filename="run.sh")
    status, answer = await server.post(form, Authorization=f"Bearer {user}")
    assert status == 201
    for job in (answer["id"], 99):
        status, answer = await call(user, f"/jobs/{job}/explanation")
        assert (status, answer["id"], "administrators" in answer["message"]) == (403, 0, True)
    assert (await call(admin, "/jobs/99/explanation"))[0] == 404
    assert (await call(admin, "/jobs/1/explanation"))[0] == 200
