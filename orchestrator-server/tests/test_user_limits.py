"""Limits of a user: MAX_QUEUED_PER_USER and MAX_STORED_PER_USER."""

import asyncio
import random
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import pytest
from aiohttp import web

from fake_client import FakeClient, answering
from running_server import Server, StartServer, in_folders


@pytest.fixture
async def full_server(
    start_server: StartServer,
    client: FakeClient,
    start_client: Callable[[FakeClient], Awaitable[str]],
) -> AsyncIterator[Server]:
    """Start a server without a free slot, so that jobs stay queued. A user may have five."""
    over = asyncio.Event()

    async def hang(request: web.Request) -> web.StreamResponse:
        await over.wait()
        return await answering(503)(request)

    client.instead["submit"] = hang
    server = await start_server(
        await start_client(client), SERVICE_EXAMPLE_MAX_RUNS="1", MAX_QUEUED_PER_USER="5"
    )
    await server.until(await server.submit(user=0), "Processing")
    yield server
    over.set()


@in_folders
async def test_queued_jobs_of_a_user_are_limited_however_many_arrive_concurrently(
    full_server: Server,
) -> None:
    server = full_server
    answers = await asyncio.gather(*(server.upload(user=7) for _ in range(20)))
    assert Counter(status for status, _ in answers) == {201: 5, 429: 15}
    (message,) = {answer["message"] for status, answer in answers if status == 429}
    assert message == ("User 7 has 5 queued jobs, and may have 5; wait until some have run")
    assert len([name for name in server.folders() if "/" not in name]) == 6, (
        "refused uploads leave no files"
    )
    assert (await server.upload(user=8))[0] == 201, "the limit holds for each user"


async def test_refusal_of_a_queued_job_says_when_to_retry(full_server: Server) -> None:
    server = full_server
    for _ in range(5):
        await server.submit()
    form = {"user_id": "1", "service": "example"}

    body = aiohttp.FormData(form)
    body.add_field("f", b"exit 0", filename="run.sh")
    async with server.http.post("/upload", data=body) as response:
        assert response.status == 429
        assert int(response.headers["Retry-After"]) > 0


async def test_stored_bytes_of_a_user_are_limited_for_inputs_and_new_results_together(
    start_server: StartServer,
    client: FakeClient,
    start_client: Callable[[FakeClient], Awaitable[str]],
) -> None:
    server = await start_server(await start_client(client), MAX_STORED_PER_USER="10kB")
    form = aiohttp.FormData({"user_id": "1", "service": "example", "results": "new"})
    for name, content in {"run.sh": b"exit 0\n", "x": b"x" * 6000}.items():
        form.add_field("file", content, filename=name)
    job = (await server.post(form))[1]["id"]
    status, answer = await server.upload(x=b"x" * 6000)
    assert (status, answer["code"]) == (507, "too-much-stored")
    assert "user 1 take 6007 bytes, and may take 10000; these have 6007" in answer["message"]
    assert (await server.upload(user=2, x=b"x" * 6000))[0] == 201
    noise = random.Random(1).randbytes(1000).hex()  # noqa: S311 (deflate makes it 2 kB)
    client.complete(await client.next_payload(), out=noise)
    assert (await server.ended(job))[0] == "Completed"
    assert (await server.upload(x=b"x" * 3000))[0] == 507, "the output counts too"
    assert (await server.upload(x=b"x" * 100))[0] == 201


async def test_without_limits_a_user_may_queue_any_number_of_jobs(idle_server: Server) -> None:
    for _ in range(8):
        await idle_server.submit()


async def test_idle_slots_are_lent_up_to_the_burst(
    client: FakeClient,
    start_client: Callable[[FakeClient], Awaitable[str]],
    start_server: StartServer,
) -> None:
    server = await start_server(
        await start_client(client),
        SERVICE_EXAMPLE_RUNS_PER_USER="2",
        SERVICE_EXAMPLE_RUNS_PER_USER_BURST="6",
        BORROW_RESERVE="3",
    )
    await server.hears_clients()
    jobs = [await server.submit(user=1) for _ in range(8)]
    await server.until(jobs[5], "Submitted")
    assert (await server.state(jobs[6]))[0] == "Queued"
    others = [await server.submit(user=2) for _ in range(4)]
    await server.until(others[1], "Submitted")
    # The third job of user 2 would borrow one of the two slots that are left.
    assert (await server.state(others[2]))[0] == "Queued"
    (service,) = (await server.get_json("/services"))["services"]
    assert (service["runs_per_user"], service["runs_per_user_burst"]) == (2, 6)


async def test_jobs_beyond_the_rate_wait_and_say_for_how_long(
    client: FakeClient,
    start_client: Callable[[FakeClient], Awaitable[str]],
    start_server: StartServer,
) -> None:
    server = await start_server(
        await start_client(client), JOBS_PER_HOUR="60", JOBS_PER_HOUR_BURST="2"
    )
    await server.hears_clients()
    jobs = [await server.submit(user=1) for _ in range(3)]
    await server.until(jobs[1], "Submitted")
    reason = (await server.get_json(f"/jobs/{jobs[2]}"))["queue"]["reason"]
    assert re.fullmatch(
        r"This user may start 60 jobs an hour, 2 in a row; the next one in \d+ s", reason
    )
    assert reason[:60] in (await server.state(jobs[2]))[1]
    await server.until(await server.submit(user=2), "Submitted")


async def test_uploads_beyond_the_rate_are_refused_with_the_time_to_wait(
    idle_settings: dict[str, str], start_server: StartServer
) -> None:
    server = await start_server("http://127.0.0.1:9", **idle_settings)
    for _ in range(2):
        await server.submit(user=1)
    form = aiohttp.FormData({"user_id": "1", "service": "example"})
    form.add_field("file", b"exit 0", filename="run.sh")
    async with server.http.post("/upload", data=form) as response:
        assert response.status == 429
        assert 50 <= int(response.headers["Retry-After"]) <= 60
        message = (await response.json())["message"]
    assert message == "User 1 may send 60 jobs an hour, 2 in a row; try again later"
    await server.submit(user=2)


@pytest.fixture
def idle_settings() -> dict[str, str]:
    """Return settings with a rate beyond which uploads are refused."""
    return {"JOBS_PER_HOUR": "60", "JOBS_PER_HOUR_BURST": "2", "RATE_LIMIT": "refuse"}
