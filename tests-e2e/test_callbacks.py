"""Callbacks of a server that is killed."""

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
    """Records the callbacks, and answers when it is allowed to."""

    def __init__(self) -> None:
        self.told: asyncio.Queue[tuple[str, dict[str, Any]]] = asyncio.Queue()
        self.answer = asyncio.Event()
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        self.told.put_nowait((request.headers["webhook-id"], json.loads(await request.read())))
        await self.answer.wait()
        return web.Response()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/", receiver.take)
    async with TestServer(app) as server:
        receiver.url = str(server.make_url("/"))
        yield receiver
        receiver.answer.set()


async def test_callback_that_a_crash_interrupts_is_made_by_the_next_life(
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
    async with asyncio.timeout(30):
        first, told = await receiver.told.get()
    assert (told["id"], told["status"], told["exit_code"]) == (job, "Failed", 3)
    await server.end(signal.SIGKILL)
    await server.start()
    async with asyncio.timeout(30):
        assert await receiver.told.get() == (first, told)
    receiver.answer.set()
    assert (await portal.end_of(job))["status"] == "Failed"
    await server.end()
    await server.start()
    assert receiver.told.empty()
