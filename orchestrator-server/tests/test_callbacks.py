"""callback_url: the end of a job is told, until it is taken, and delays nobody."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from fake_client import FakeClient
from job_orchestrator.common.status import JobStatus, PayloadStatus
from job_orchestrator.server.callbacks import notifier
from job_orchestrator.server.callbacks.delivery import Message, signature
from job_orchestrator.server.callbacks.rules import CallbackRules
from job_orchestrator.server.model import Job, JobOptions
from job_orchestrator.server.store.base import JobStore, Offer
from job_orchestrator.server.store.sqlite.store import open_store
from running_server import Server, StartServer

SECRET = "a-secret-of-a-good-length"
SETTINGS = {
    "CALLBACK_ALLOW": "127.0.0.1, localhost",
    "CALLBACK_ALLOW_PRIVATE": "1",
    "CALLBACK_SECRET": SECRET,
}


class Receiver:
    """Answers as it is told, and keeps what it took."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.told: asyncio.Queue[tuple[dict[str, str], bytes]] = asyncio.Queue()
        self.hold = asyncio.Event()
        self.hold.set()
        self.waiting = 0
        self.port = 0

    def url(self, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}/hook"

    async def take(self, request: web.Request) -> web.Response:
        self.told.put_nowait((dict(request.headers), await request.read()))
        if request.host.startswith("127."):
            self.waiting += 1
            await self.hold.wait()
        return web.Response(status=self.statuses.pop(0) if self.statuses else 204)

    async def next(self) -> tuple[dict[str, str], dict[str, Any]]:
        async with asyncio.timeout(20):
            headers, body = await self.told.get()
        key = SECRET.encode()
        sent = Message(headers["webhook-id"], body)
        assert headers["webhook-signature"] == signature(
            key, sent, int(headers["webhook-timestamp"])
        )
        return headers, json.loads(body)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/hook", receiver.take)
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
    monkeypatch: pytest.MonkeyPatch,
) -> Server:
    """A server that makes callbacks, and tries again at once."""
    monkeypatch.setattr(notifier, "RETRY_S", (0.0, 0.0, 0.0))
    server = await start_server(await start_client(client), **SETTINGS)
    await client.connected.wait()
    return server


async def submit(server: Server, url: str) -> tuple[int, dict[str, Any]]:
    form = aiohttp.FormData(
        {"user_id": "1", "service": "example", "callback_url": url}, quote_fields=False
    )
    form.add_field("file", b"exit 0\n", filename="run.sh")
    return await server.post(form)


async def nothing_is_left(server: Server) -> None:
    await server.eventually(lambda: server.rows("SELECT * FROM callbacks") == [])


async def test_end_is_told_signed_and_once(
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
    }
    await nothing_is_left(server)
    assert receiver.told.empty()


async def test_terminated_and_failed_jobs_are_told_too(
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


async def test_receiver_that_fails_is_told_again_with_the_same_id(
    server: Server, client: FakeClient, receiver: Receiver
) -> None:
    receiver.statuses = [500, 302]
    await submit(server, receiver.url())
    client.complete(await client.next_payload())
    ids = {(await receiver.next())[0]["webhook-id"] for _ in range(3)}
    assert len(ids) == 1
    await nothing_is_left(server)
    assert receiver.told.empty()


async def test_receiver_that_never_takes_it_is_given_up(
    server: Server, client: FakeClient, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.statuses = [500] * 20
    _, answer = await submit(server, receiver.url())
    client.complete(await client.next_payload())
    await server.ended(answer["id"])
    await nothing_is_left(server)
    assert receiver.told.qsize() == 1 + len(notifier.RETRY_S)
    assert "its callback is given up: the receiver answered 500" in caplog.text


async def test_receiver_that_hangs_delays_neither_jobs_nor_other_receivers(
    server: Server, client: FakeClient, receiver: Receiver
) -> None:
    receiver.hold.clear()
    for _ in range(notifier.MAX_CALLS_PER_HOST + 2):
        await submit(server, receiver.url())
        client.complete(await client.next_payload())
    await server.eventually(lambda: receiver.waiting == notifier.MAX_CALLS_PER_HOST)
    _, answer = await submit(server, receiver.url("localhost"))
    client.complete(await client.next_payload())
    assert await server.ended(answer["id"]) == ("Completed", "")
    while (await receiver.next())[1]["id"] != answer["id"]:
        pass
    assert receiver.waiting == notifier.MAX_CALLS_PER_HOST
    receiver.hold.set()
    await nothing_is_left(server)


async def test_url_that_is_not_allowed_is_refused_and_nothing_kept(server: Server) -> None:
    status, answer = await submit(server, "https://example.org/hook")
    assert status == 400
    assert answer["message"] == "callback_url is not allowed for the host 'example.org'"
    assert server.rows() == []
    assert server.folders() == []


async def ended_job(store: JobStore) -> Job:
    await store.create("u", 1, "s", JobOptions(callback_url="http://x/"))
    offer = Offer(9, ["http://c"], lambda _, waiting: [w.user_id for w in waiting])
    (taken,) = (await store.claim({"s": offer})).values()
    return await store.transition(taken.jobs[0], JobStatus.FAILED, "")


async def test_end_that_was_not_told_is_told_by_the_next_life(tmp_path: Path) -> None:
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
        assert await store.outbox.due(10) == [], "Cleaned is no end"


def test_pauses_grow_and_end() -> None:
    assert list(notifier.RETRY_S) == sorted(notifier.RETRY_S)
    assert sum(notifier.RETRY_S) < 24 * 3600
    assert CallbackRules().patterns == ()
