"""Callbacks of ended jobs: delivered from the outbox until accepted, without delaying others."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from fake_client import FakeClient
from job_orchestrator.common.runtime.backoff import Backoff
from job_orchestrator.common.status import JobStatus, PayloadStatus
from job_orchestrator.server.callbacks.delivery import Message, WebhookSender, signature
from job_orchestrator.server.callbacks.notifier import BACKOFF, MAX_DELIVERIES_PER_HOST, Notifier
from job_orchestrator.server.model import CallbackRules, Job, JobOptions
from job_orchestrator.server.store.base import JobStore
from job_orchestrator.server.store.queue import Offer
from job_orchestrator.server.store.sqlite.store import open_store
from running_server import Server, StartServer

SECRET = "a-secret-of-a-good-length"
SETTINGS = {
    "CALLBACK_ALLOW": "127.0.0.1, localhost",
    "CALLBACK_ALLOW_PRIVATE": "1",
    "CALLBACK_SECRET": SECRET,
}
NO_DELAYS = Backoff((0.0, 0.0, 0.0))


class Receiver:
    """A receiver of callbacks, which checks signatures and answers as a test wants.

    ``statuses`` are the next answers, then 204. While ``hold`` is not set, deliveries to
    127.0.0.1 get no answer; ``held`` counts them.
    """

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.received: asyncio.Queue[tuple[dict[str, str], bytes]] = asyncio.Queue()
        self.hold = asyncio.Event()
        self.hold.set()
        self.held = 0
        self.port = 0

    def url(self, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}/hook"

    async def handle(self, request: web.Request) -> web.Response:
        self.received.put_nowait((dict(request.headers), await request.read()))
        if request.host.startswith("127."):
            self.held += 1
            await self.hold.wait()
        return web.Response(status=self.statuses.pop(0) if self.statuses else 204)

    async def next(self) -> tuple[dict[str, str], dict[str, Any]]:
        """Return headers and body of the next callback."""
        async with asyncio.timeout(60):
            headers, body = await self.received.get()
        message = Message(headers["webhook-id"], body)
        timestamp = int(headers["webhook-timestamp"])
        assert headers["webhook-signature"] == signature(SECRET.encode(), message, timestamp)
        return headers, json.loads(body)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/hook", receiver.handle)
    async with TestServer(app) as server:
        assert server.port
        receiver.port = server.port
        yield receiver
        receiver.hold.set()


@pytest.fixture
async def server(
    client: FakeClient,
    start_client: Callable[[FakeClient], Awaitable[str]],
    start_server: StartServer,
) -> Server:
    """Start a server that makes callbacks."""
    server = await start_server(await start_client(client), **SETTINGS)
    await client.connected.wait()
    return server


@pytest.fixture
async def notifier(store: JobStore) -> AsyncIterator[Notifier]:
    """Start a notifier that repeats failed deliveries without a delay."""
    rules = CallbackRules(("127.0.0.1",), allow_private=True)
    sender = WebhookSender(rules, SECRET.encode(), time.time)
    notifier = Notifier(
        store.outbox,
        sender,
        lambda job: json.dumps({"id": job.id, "status": job.status}).encode(),
        backoff=NO_DELAYS,
    )
    store.subscribe(notifier.on_job_changed)
    notifier.loop.start()
    yield notifier
    await notifier.loop.stop()
    await notifier.close()
    await sender.close()


async def submit(server: Server, url: str) -> tuple[int, dict[str, Any]]:
    form = aiohttp.FormData(
        {"user_id": "1", "service": "example", "callback_url": url}, quote_fields=False
    )
    form.add_field("file", b"exit 0\n", filename="run.sh")
    return await server.post(form)


async def outbox_is_empty(server: Server) -> None:
    await server.eventually(lambda: server.rows("SELECT * FROM callbacks") == [])


async def no_callback_is_due(store: JobStore) -> None:
    """Wait until the outbox is empty: without delays, a callback in it is always due."""
    async with asyncio.timeout(60):
        while await store.outbox.due(1):  # noqa: ASYNC110 (there is no event)
            await asyncio.sleep(0.01)


async def ended_job(store: JobStore, url: str = "http://x/") -> Job:
    await store.create("u", 1, "s", JobOptions(callback_url=url))
    offer = Offer(9, ["http://c"], lambda _, __, waiting, ___: [w.user_id for w in waiting])
    (claim,) = (await store.claim({"s": offer})).values()
    return await store.transition(claim.jobs[0], JobStatus.FAILED, "")


async def test_callback_job_completed_is_signed_and_delivered_once(
    server: Server, client: FakeClient, receiver: Receiver
) -> None:
    _, answer = await submit(server, receiver.url())
    payload = await client.next_payload()
    client.report(payload, PayloadStatus.RUNNING)
    client.complete(payload)
    headers, body = await receiver.next()
    assert headers["Content-Type"] == "application/json"
    (uuid,) = server.rows("SELECT uuid FROM jobs")[0]
    assert headers["webhook-id"] == f"job_{uuid}"
    times = {name: body.pop(name) for name in ("created_at", "started_at", "ended_at")}
    assert list(times.values()) == sorted(times.values())
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", t) for t in times.values())
    assert 0 <= body.pop("ran_s") < 60
    assert body == {
        "id": answer["id"],
        "user_id": 1,
        "service": "example",
        "status": "Completed",
        "message": "",
        "name": "",
        "tag": "",
        "priority": 0,
        "attempt": 1,
        "exit_code": 0,
        "client": body["client"],
        "time_limit_s": None,
        "has_output": True,
        "output_bytes": len(client.results[payload]),
        "failures": 0,
        "held": False,
        "cpus": 0.0,
        "memory_bytes": 0,
        "gpus": 0,
        "array_id": None,
        "array_index": None,
    }
    await outbox_is_empty(server)
    assert receiver.received.empty()


async def test_callback_job_terminated_or_failed_is_delivered(
    server: Server, client: FakeClient, receiver: Receiver
) -> None:
    _, answer = await submit(server, receiver.url())
    await client.next_payload()
    async with server.http.post(f"/terminate/{answer['id']}") as response:
        assert response.status == 200
    assert (await receiver.next())[1]["status"] == "Killed"
    await submit(server, receiver.url())
    client.report(await client.next_payload(), PayloadStatus.FAILED, exit_code=3)
    _, body = await receiver.next()
    assert body["status"] == "Failed"


@pytest.mark.usefixtures("notifier")
async def test_callback_receiver_fails_is_repeated_with_the_same_id(
    store: JobStore, receiver: Receiver
) -> None:
    receiver.statuses = [500, 302]
    job = await ended_job(store, receiver.url())
    deliveries = [await receiver.next() for _ in range(3)]
    assert {headers["webhook-id"] for headers, _ in deliveries} == {"job_u"}
    assert [body["id"] for _, body in deliveries] == [job.id] * 3
    await no_callback_is_due(store)
    assert receiver.received.empty()


@pytest.mark.usefixtures("notifier")
async def test_callback_receiver_never_accepts_is_given_up(
    store: JobStore, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.statuses = [500] * 20
    await ended_job(store, receiver.url())
    async with asyncio.timeout(60):
        # There is no event for a log record.
        while "Job 1: callback given up: the receiver answered 500" not in caplog.text:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert receiver.received.qsize() == 1 + len(NO_DELAYS.delays_s)
    await no_callback_is_due(store)


async def test_callback_receiver_hangs_neither_jobs_nor_other_receivers_are_delayed(
    server: Server, client: FakeClient, receiver: Receiver
) -> None:
    receiver.hold.clear()
    for _ in range(MAX_DELIVERIES_PER_HOST + 2):
        await submit(server, receiver.url())
        client.complete(await client.next_payload())
    await server.eventually(lambda: receiver.held == MAX_DELIVERIES_PER_HOST)
    _, answer = await submit(server, receiver.url("localhost"))
    client.complete(await client.next_payload())
    assert await server.ended(answer["id"]) == ("Completed", "")
    while (await receiver.next())[1]["id"] != answer["id"]:
        pass
    assert receiver.held == MAX_DELIVERIES_PER_HOST
    receiver.hold.set()
    await outbox_is_empty(server)


async def test_submit_callback_url_not_allowed_is_refused_and_nothing_is_kept(
    server: Server,
) -> None:
    status, answer = await submit(server, "https://example.org/hook")
    assert status == 400
    assert answer["message"] == "callback_url is not allowed for the host 'example.org'"
    assert server.rows() == []
    assert server.folders() == []


async def test_outbox_undelivered_callback_survives_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "db.sqlite"
    async with open_store(path) as store:
        job = await ended_job(store)
    async with open_store(path) as store:
        (due,) = await store.outbox.due(10)
        assert (due.job, due.attempts) == (job, 0)
        await store.outbox.later(job.id, 60)
        assert await store.outbox.due(10) == []
        await store.transition(job, JobStatus.CLEANED, "")
        await store.outbox.done(job.id)
    async with open_store(path, lambda: 1e12) as store:
        assert await store.outbox.due(10) == [], "Cleaned is not an end"


def test_backoff_delays_grow_and_end_within_a_day() -> None:
    assert list(BACKOFF.delays_s) == sorted(BACKOFF.delays_s)
    assert sum(BACKOFF.delays_s) < 24 * 3600
