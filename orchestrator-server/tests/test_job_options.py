"""Options of a submission: name, tag, priority, time limit and idempotency key."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from fake_client import FakeClient
from job_orchestrator.common.status import JobStatus
from job_orchestrator.server.model import JobOptions
from job_orchestrator.server.store.base import JobStore
from job_orchestrator.server.store.queue import Offer, WaitingUser
from job_orchestrator.server.store.sqlite.store import open_store
from running_server import Server, in_both_forms, in_folders
from stores import requeue

STATES = JobStatus


def form(content: bytes = b"exit 0\n", /, **fields: str) -> aiohttp.FormData:
    form = aiohttp.FormData({"user_id": "1", "service": "example", **fields})
    form.add_field("file", content, filename="run.sh")
    return form


async def test_submit_options_are_stored_with_the_job(idle_server: Server) -> None:
    options = {"name": " Ubiquitin, ä ", "tag": "run-7", "priority": "-3", "time_limit": "5m"}
    assert (await idle_server.post(form(**options)))[0] == 201
    kept = idle_server.rows(
        "SELECT name, tag, priority, time_limit_s, callback_url, input_bytes FROM jobs"
    )
    assert kept == [("Ubiquitin, ä", "run-7", -3, 300.0, None, 7)]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("name", "x" * 201, "Invalid name, should be at most 200 printable characters"),
        ("name", "two\nlines", "Invalid name"),
        ("tag", "x" * 101, "Invalid tag, should be at most 100 printable characters"),
        ("priority", "101", "Invalid priority, should be a whole number from -100 to 100"),
        ("priority", "high", "Invalid priority"),
        ("priority", "1.5", "Invalid priority"),
        ("time_limit", "soon", "Invalid time_limit, should be seconds, or a number with s, m"),
        ("time_limit", "0", "Invalid time_limit"),
        ("time_limit", "366d", "Invalid time_limit"),
        ("cpus", "0.001", "Invalid cpus, should be a number from 0.01 to 10000"),
        ("cpus", "many", "Invalid cpus"),
        ("cpus", "-1", "Invalid cpus"),
        ("memory", "1kB", "Invalid memory, should be bytes, or a number with MB, GB, MiB or GiB"),
        ("memory", "much", "Invalid memory"),
        ("gpus", "1.5", "Invalid gpus, should be a whole number from 0 to 1000"),
        ("gpus", "-1", "Invalid gpus"),
        ("outputs", "../secret", "Invalid outputs '../secret': it has an empty or '..' component"),
        ("results", "some", "Invalid results, should be all or new"),
        (
            "callback_url",
            "http://portal/done",
            "callback_url is not allowed here: CALLBACK_ALLOW is not set",
        ),
    ],
)
async def test_submit_invalid_option_is_a_400_and_leaves_nothing(
    idle_server: Server, field: str, value: str, message: str
) -> None:
    status, answer = await idle_server.post(form(**{field: value}))
    assert (status, answer["id"]) == (400, 0)
    assert answer["message"].startswith(message)
    assert idle_server.rows() == []
    assert idle_server.folders() == []


def record_time_limits(client: FakeClient) -> list[str | None]:
    """Return the list to which the time limit of each submit is added."""
    seen: list[str | None] = []
    submit = client.submit

    async def record(request: web.Request) -> web.Response:
        seen.append(request.headers.get("Time-Limit"))
        return await submit(request)

    client.instead["submit"] = record
    return seen


async def test_submit_time_limit_is_sent_to_the_client(server: Server, client: FakeClient) -> None:
    seen = record_time_limits(client)
    await server.post(form(time_limit="90.5"))
    await client.next_payload()
    await server.post(form())
    await client.next_payload()
    assert seen == ["90.500", None]


@in_both_forms
async def test_selection_of_results_is_stored_sent_to_the_client_and_shown(
    server: Server, client: FakeClient
) -> None:
    form = aiohttp.FormData([("user_id", "1"), ("service", "example"), ("results", "new")])
    for pattern in ("out/*.csv", "**/*.log"):
        form.add_field("outputs", pattern)
    form.add_field("file", b"exit 0\n", filename="run.sh")
    status, job = await server.post(form)
    assert status == 201, job
    await client.next_payload()
    assert client.selections == [(["out/*.csv", "**/*.log"], ["new"])]
    async with server.http.get(f"/jobs/{job['id']}") as response:
        shown = await response.json()
    assert (shown["outputs"], shown["results"]) == (["out/*.csv", "**/*.log"], "new")


async def test_client_of_a_job_that_selects_nothing_gets_file_parts_only(
    server: Server, client: FakeClient
) -> None:
    job = await server.submit()
    await client.next_payload()
    assert client.selections == [([], [])]
    async with server.http.get(f"/jobs/{job}") as response:
        shown = await response.json()
    assert (shown["outputs"], shown["results"]) == ([], "all")


async def test_submit_repeated_key_returns_the_same_job_and_leaves_nothing(
    idle_server: Server,
) -> None:
    key = {"Idempotency-Key": "order 66"}
    assert await idle_server.post(form(), **key) == (
        201,
        {"id": 1, "status": "Queued", "message": "Job successfully uploaded"},
    )
    folders = idle_server.folders()
    async with idle_server.http.post(
        "/upload", data=form(b"exit 1\n", name="other"), headers=key
    ) as response:
        assert response.status == 200
        assert response.headers["Location"] == "/jobs/1"
        assert (await response.json())["message"] == "Job already uploaded"
    assert idle_server.folders() == folders
    assert (await idle_server.post(form(user_id="2"), **key))[1]["id"] == 2, "another user's key"
    assert (await idle_server.post(form()))[1]["id"] == 3, "no key"


@in_folders
async def test_submit_concurrent_repeats_create_one_job(idle_server: Server) -> None:
    answers = await asyncio.gather(
        *(idle_server.post(form(), **{"Idempotency-Key": "k"}) for _ in range(8))
    )
    assert sorted(status for status, _ in answers) == [200] * 7 + [201]
    assert {answer["id"] for _, answer in answers} == {1}
    assert len(idle_server.rows()) == 1
    await idle_server.eventually(
        lambda: len([f for f in idle_server.folders() if f.endswith("run.sh")]) == 1
    )


@pytest.mark.parametrize("key", ["", "x" * 256, "ä"])
async def test_submit_invalid_key_is_a_400(idle_server: Server, key: str) -> None:
    status, answer = await idle_server.post(form(), **{"Idempotency-Key": key})
    assert status == 400
    assert answer["message"].startswith("Invalid Idempotency-Key")
    assert idle_server.folders() == []


async def test_create_key_of_a_cleaned_job_can_be_used_again(store: JobStore) -> None:
    options = JobOptions(idempotency_key="k")
    job = await store.create("u1", 1, "x", options)
    assert (await store.create("u2", 1, "x", options)).id == job.id
    await store.transition(job, JobStatus.KILLED, "")
    assert (await store.create("u3", 1, "x", options)).id == job.id
    await store.transition(await store.get(1), JobStatus.CLEANED, "")
    again = await store.create("u4", 1, "x", options)
    assert (again.uuid, again.status) == ("u4", JobStatus.QUEUED)


async def test_claim_higher_priority_is_first_among_jobs_of_one_user_only(store: JobStore) -> None:
    for user, priority in ((1, 0), (1, -1), (1, 5), (1, 5), (2, 0)):
        options = JobOptions(priority=priority)
        await store.create(f"{user}{priority}{id(options)}", user, "x", options)
    ahead = [await store.queue.ahead(await store.get(job)) for job in range(1, 6)]
    assert ahead == [2, 3, 0, 1, 0]
    heads: list[int] = []

    def decide(_: int, slots: int, waiting: Sequence[WaitingUser], __: object) -> list[int]:
        heads.extend(user.head for user in waiting)
        return [1, 1, 2, 1, 1]

    claim = (await store.claim({"x": Offer(9, ["c"] * 5, decide)}))["x"]
    assert [job.id for job in claim.jobs] == [3, 4, 5, 1, 2]
    assert heads == [3, 5]


@pytest.mark.parametrize(
    ("path", "started"),
    [
        ([STATES.SUBMITTED, STATES.RUNNING, STATES.COMPLETED], 1002.0),
        ([STATES.SUBMITTED, STATES.COMPLETED], 1002.0),
        ([STATES.SUBMITTED, STATES.UNKNOWN, STATES.RUNNING, STATES.FAILED], 1003.0),
        ([STATES.SUBMITTED, STATES.KILLED], None),
        ([STATES.FAILED], None),
    ],
)
async def test_started_at_is_the_first_running_or_the_end(
    tmp_path: Path, path: list[JobStatus], started: float | None
) -> None:
    clock = [1000.0]
    async with open_store(tmp_path / "own.sqlite", now=lambda: clock[0]) as store:
        await store.create("u", 1, "x")
        offer: dict[str, Any] = {"x": Offer(1, ["c"], lambda *_: [1])}
        await store.claim(offer)
        for status in path:
            clock[0] += 1
            job = await store.transition(await store.get(1), status, "")
        assert job.started_at == started


async def test_started_at_of_a_job_that_is_run_again_is_that_of_the_last_attempt(
    tmp_path: Path,
) -> None:
    clock = [1000.0]
    async with open_store(tmp_path / "own.sqlite", now=lambda: clock[0]) as store:
        await store.create("u", 1, "x")
        offer: dict[str, Any] = {"x": Offer(1, ["c"], lambda *_: [1])}
        for attempt in (1, 2):
            clock[0] = 1000.0 * attempt
            await store.claim(offer)
            await store.transition(await store.get(1), STATES.SUBMITTED, "")
            job = await store.transition(await store.get(1), STATES.RUNNING, "")
            assert job.started_at == clock[0]
            job = await requeue(store, job)
            assert job.started_at is None
        await store.claim(offer)
        await store.transition(await store.get(1), STATES.SUBMITTED, "")
        clock[0] = 3000.0
        job = await store.transition(await store.get(1), STATES.COMPLETED, "")
        assert job.started_at == 3000.0


async def test_completed_job_size_of_the_output_is_stored(
    server: Server, client: FakeClient
) -> None:
    job = await server.submit()
    payload = await client.next_payload()
    client.complete(payload, out="x" * 500)
    assert await server.ended(job) == ("Completed", "")
    size = len(client.results[payload])
    assert server.rows("SELECT output_bytes, has_output FROM jobs") == [(size, 1)]


async def test_time_limit_of_job_and_service_the_smaller_is_sent(
    start_client: Callable[..., Awaitable[str]], start_server: Callable[..., Awaitable[Server]]
) -> None:
    client = FakeClient()
    seen = record_time_limits(client)
    server = await start_server(await start_client(client), SERVICE_EXAMPLE_TIME_LIMIT="1m")
    for options in ({"time_limit": "2m"}, {"time_limit": "30"}, {}):
        await server.post(form(**options))
        await client.next_payload()
    assert [float(text or 0) for text in seen] == [60, 30, 60]
