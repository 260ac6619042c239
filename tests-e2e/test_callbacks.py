"""Callbacks of a server that is killed during their delivery."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from harness import Portal, StartClient, StartServer


class Receiver:
    """Receiver of callbacks: stores each callback, and responds once ``may_respond`` is set."""

    def __init__(self) -> None:
        self.received: asyncio.Queue[tuple[str, dict[str, Any]]] = asyncio.Queue()
        self.may_respond = asyncio.Event()
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        self.received.put_nowait((request.headers["webhook-id"], json.loads(await request.read())))
        await self.may_respond.wait()
        return web.Response()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/", receiver.take)
    async with TestServer(app) as server:
        receiver.url = str(server.make_url("/"))
        yield receiver
        receiver.may_respond.set()


async def test_callback_interrupted_by_a_crash_is_delivered_after_the_restart(
    start_client: StartClient,
    start_server: StartServer,
    session: aiohttp.ClientSession,
    receiver: Receiver,
) -> None:
    server = await start_server(
        await start_client(),
        CALLBACK_ALLOW="127.0.0.1",
        CALLBACK_ALLOW_PRIVATE="1",
        CALLBACK_SECRET="a-secret-of-a-good-length",
    )
    portal = Portal(server.url, session)
    form = aiohttp.FormData(
        {"user_id": "1", "service": "example", "callback_url": receiver.url}, quote_fields=False
    )
    form.add_field("file", b"exit 3\n", filename="run.sh")
    async with session.post(f"{server.url}/upload", data=form) as response:
        job = (await response.json())["id"]
    async with asyncio.timeout(60):
        first_id, body = await receiver.received.get()
    assert (body["id"], body["status"], body["exit_code"]) == (job, "Failed", 3)
    await server.end(signal.SIGKILL)
    await server.start()
    async with asyncio.timeout(60):
        assert await receiver.received.get() == (first_id, body)
    receiver.may_respond.set()
    assert (await portal.end_of(job))["status"] == "Failed"
    await server.end()
    await server.start()
    assert receiver.received.empty()
