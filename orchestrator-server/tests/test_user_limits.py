"""MAX_QUEUED_PER_USER and MAX_STORED_PER_USER."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from fake_client import FakeClient, answering
from job_orchestrator.common.status import JobStatus
from job_orchestrator.server.errors import TooManyQueued, TooMuchStored
from job_orchestrator.server.model import Job, JobOptions, UserLimits
from job_orchestrator.server.store.base import Offer
from job_orchestrator.server.store.sqlite.jobs import JobStore
from job_orchestrator.server.store.sqlite.maintenance import opened, recount_usage, wrong_usage
from job_orchestrator.server.store.sqlite.opening import open_store
from job_orchestrator.server.store.sqlite.usage import USAGE
from running_server import Server, StartServer


async def usage(store: JobStore, user_id: int = 1) -> tuple[int, int]:
    rows = list(await store._reader.execute_fetchall(USAGE, (user_id,)))
    return (int(rows[0][0]), int(rows[0][1])) if rows else (0, 0)


async def claim(store: JobStore) -> Job | None:
    offer = Offer(1000, ["http://c/submit"], lambda _, waiting: [w.user_id for w in waiting])
    jobs = [job for taken in (await store.claim({"s": offer})).values() for job in taken.jobs]
    return jobs[0] if jobs else None


@pytest.fixture
async def full_server(
    start_server: StartServer,
    client: FakeClient,
    start_client: Callable[[FakeClient], Awaitable[str]],
) -> AsyncIterator[Server]:
    """A server whose one slot is taken, so that jobs stay queued; a user may have five."""
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


async def test_queue_of_a_user_is_bounded_however_many_come_at_once(
    full_server: Server,
) -> None:
    server = full_server
    answers = await asyncio.gather(*(server.upload(user=7) for _ in range(20)))
    assert Counter(status for status, _ in answers) == {201: 5, 429: 15}
    (message,) = {answer["message"] for status, answer in answers if status == 429}
    assert message == ("User 7 has 5 queued jobs, and may have 5; wait until some have run")
    assert len([name for name in server.folders() if "/" not in name]) == 6, "nothing else is kept"
    assert (await server.upload(user=8))[0] == 201, "of each user"


async def test_refusal_says_when_to_come_again(full_server: Server) -> None:
    server = full_server
    for _ in range(5):
        await server.submit()
    form = {"user_id": "1", "service": "example"}

    body = aiohttp.FormData(form)
    body.add_field("f", b"exit 0", filename="run.sh")
    async with server.http.post("/upload", data=body) as response:
        assert response.status == 429
        assert int(response.headers["Retry-After"]) > 0


async def test_bytes_of_a_user_are_bounded_inputs_and_outputs_together(
    start_server: StartServer,
    client: FakeClient,
    start_client: Callable[[FakeClient], Awaitable[str]],
) -> None:
    server = await start_server(await start_client(client), MAX_STORED_PER_USER="10kB")
    job = await server.submit(x=b"x" * 6000)
    status, answer = await server.upload(x=b"x" * 6000)
    assert (status, answer["code"]) == (507, "too-much-stored")
    assert "user 1 take 6007 bytes, and may take 10000; these have 6007" in answer["message"]
    assert (await server.upload(user=2, x=b"x" * 6000))[0] == 201
    noise = random.Random(1).randbytes(1000).hex()  # noqa: S311 (deflate makes it 2 kB)
    client.complete(await client.next_payload(), out=noise)
    assert (await server.ended(job))[0] == "Completed"
    assert (await server.upload(x=b"x" * 3000))[0] == 507, "the output counts too"
    assert (await server.upload(x=b"x" * 100))[0] == 201


async def test_repeat_is_answered_though_the_queue_is_full(store: JobStore) -> None:
    limits, options = UserLimits(max_queued=1), JobOptions(idempotency_key="k")
    first = await store.create("a", 1, "s", options, limits=limits)
    assert await store.create("b", 1, "s", options, limits=limits) == first
    with pytest.raises(TooManyQueued):
        await store.create("c", 1, "s", limits=limits)


async def test_look_before_an_upload_refuses_what_could_not_be_kept_but_no_repeat(
    store: JobStore,
) -> None:
    limits = UserLimits(max_stored=100)
    await store.check_limits(1, 100, None, limits)
    await store.create("a", 1, "s", JobOptions(idempotency_key="k"), input_bytes=60)
    await store.check_limits(1, 40, None, limits)
    await store.check_limits(1, 41, "k", limits)
    for user, key in ((1, None), (1, "other")):
        with pytest.raises(TooMuchStored, match="take 60 bytes, and may take 100; these have 41"):
            await store.check_limits(user, 41, key, limits)
    await store.check_limits(2, 41, "k", limits)


async def test_refusal_spoils_nobodys_transaction(store: JobStore) -> None:
    limits = UserLimits(max_queued=1)
    outcomes = await asyncio.gather(
        *(store.create(f"{n}", n % 3, "s", limits=limits) for n in range(12)),
        return_exceptions=True,
    )
    assert sum(isinstance(outcome, Job) for outcome in outcomes) == 3
    assert sum(isinstance(outcome, TooManyQueued) for outcome in outcomes) == 9


async def test_counters_follow_a_job_through_its_life(store: JobStore) -> None:
    await store.create("a", 1, "s", input_bytes=100)
    assert await usage(store) == (1, 100)
    job = await claim(store)
    assert job is not None
    assert await usage(store) == (0, 100)
    job = await store.requeue(job, "", delay_s=0, max_attempts=3, counts=True, may_still_run=False)
    assert await usage(store) == (1, 100)
    job = await claim(store)
    assert job is not None
    job = await store.transition(job, JobStatus.SUBMITTED, "", dest_id=1)
    job = await store.transition(job, JobStatus.COMPLETED, "", output_bytes=50)
    assert await usage(store) == (0, 150)
    await store.transition(job, JobStatus.CLEANED, "")
    assert await usage(store) == (0, 0)


async def test_check_finds_counters_that_are_wrong(tmp_path: Path) -> None:
    path = tmp_path / "db.sqlite"
    async with open_store(path) as store:
        for user in range(3):
            await store.create(f"{user}", user, "s", input_bytes=10)

    def work() -> None:
        with opened(path) as connection:
            assert wrong_usage(connection) == []
            connection.execute("UPDATE usage SET queued = 7 WHERE user_id = 1")
            connection.execute("DELETE FROM usage WHERE user_id = 2")
            assert sorted(wrong_usage(connection)) == [1, 2]
            recount_usage(connection)
            assert wrong_usage(connection) == []

    await asyncio.to_thread(work)


async def test_look_up_costs_the_same_with_any_history(store: JobStore) -> None:
    plan = await store._reader.execute_fetchall(f"EXPLAIN QUERY PLAN {USAGE}", (1,))
    assert "USING INTEGER PRIMARY KEY" in str([tuple(row) for row in plan])


async def test_without_limits_nobody_is_bounded(idle_server: Server) -> None:
    for _ in range(8):
        await idle_server.submit()
