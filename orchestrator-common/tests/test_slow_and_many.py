"""Peers that are slow, that send too much, or that connect too often."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from job_orchestrator.common.storage.form_receiver import BodyTimeout, receive_form
from job_orchestrator.common.storage.form_writer import FormLimits, ReceivedForm
from job_orchestrator.common.web.answers import front_page
from job_orchestrator.common.web.bodies import MAX_BODY_BYTES, bounded_bodies
from job_orchestrator.common.web.errors import error_middleware
from job_orchestrator.common.web.listener import STALLED_S, listen

PART = b'--x\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n'
TYPE = "multipart/form-data; boundary=x"


class Trickle:
    """Endless body of which a little arrives at a time."""

    def __init__(self, block: bytes, pause_s: float) -> None:
        self._block = block
        self._pause_s = pause_s
        self._started = False

    async def readany(self) -> bytes:
        if not self._started:
            self._started = True
            return PART
        await asyncio.sleep(self._pause_s)
        return self._block

    def is_eof(self) -> bool:
        return False

    def at_eof(self) -> bool:
        return False


def kept(form: ReceivedForm) -> ReceivedForm:
    return form


async def test_body_that_arrives_too_slowly_is_refused(tmp_path: Path) -> None:
    limits = FormLimits(10**9, idle_s=0.1, min_rate=10_000)
    with pytest.raises(BodyTimeout, match="slower than 10000 bytes a second"):
        async with asyncio.timeout(60):
            await receive_form(Trickle(b"x", 0.01), TYPE, lambda: tmp_path / "f", limits, kept)


@pytest.fixture
async def service() -> AsyncIterator[TestServer]:
    """Service with one upload and one other path."""

    async def swallow(request: web.Request) -> web.Response:
        return web.Response(text=str(len(await request.read())))

    def body_of_error(_: web.Request | None, __: Exception | None, message: str) -> bytes:
        return message.encode()

    app = web.Application(
        client_max_size=1000,
        middlewares=[error_middleware({}, body_of_error), bounded_bodies("/upload")],
    )
    app.router.add_post("/other", swallow)
    app.router.add_get("/", front_page("/docs/", api="/docs/"))
    server = TestServer(app)
    async with server:
        yield server


async def test_large_body_that_is_not_an_upload_is_refused(service: TestServer) -> None:
    async with ClientSession(str(service.make_url(""))) as http:
        large = b"x" * (MAX_BODY_BYTES + 1)
        async with http.post("/other", data=large) as response:
            assert response.status == 413
        assert len(large) > 1000

        async def chunked() -> AsyncIterator[bytes]:
            for _ in range(20):
                yield b"x" * 100

        async with http.post("/other", data=chunked()) as response:
            assert response.status == 413, "also without Content-Length"


async def test_connection_with_an_endless_head_is_closed() -> None:
    app = web.Application()
    app.router.add_get("/", front_page("/docs/", api="/docs/"))
    server = TestServer(app)
    await server.start_server(keepalive_timeout=0.3)
    async with server:
        reader, writer = await asyncio.open_connection(server.host, server.port)
        writer.write(b"GET / HTTP/1.1\r\n")

        async def drip() -> None:
            with contextlib.suppress(ConnectionError):
                while True:
                    writer.write(b"X-A: 1\r\n")
                    await writer.drain()
                    await asyncio.sleep(0.02)

        dripping = asyncio.create_task(drip())
        async with asyncio.timeout(60):
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b"", "closed without an answer"
        await dripping
        writer.close()


async def test_address_can_not_open_more_connections_than_allowed() -> None:
    app = web.Application()
    app.router.add_get("/", front_page("/docs/", api="/docs/"))
    runner = web.AppRunner(app)
    await runner.setup()
    listener = await asyncio.to_thread(listen, "127.0.0.1", 0, max_per_peer=3)
    try:
        await web.SockSite(runner, listener).start()
        address = listener.getsockname()
        streams = [await asyncio.open_connection(*address[:2]) for _ in range(3)]
        for _ in range(2):
            reader, writer = await asyncio.open_connection(*address[:2])
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b"", "closed immediately"
            writer.close()
        # The connections within the limit are served, and the end of one allows another one.
        for reader, writer in streams:
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert b"pong" in await reader.read()
            writer.close()
        async with ClientSession() as http:
            for _ in range(5):
                async with http.get(f"http://127.0.0.1:{address[1]}/") as response:
                    assert response.status == 200
    finally:
        await runner.cleanup()


async def test_peer_that_acknowledges_nothing_is_disconnected_by_the_kernel() -> None:
    listener = await asyncio.to_thread(listen, "127.0.0.1", 0)
    with listener:
        listener.listen()
        with socket.create_connection(listener.getsockname()):
            connection, _ = await asyncio.to_thread(listener.accept)
            with connection:
                timeout_ms = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
    assert timeout_ms == STALLED_S * 1000
