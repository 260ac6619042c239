"""SIGTERM while requests are in progress: each gets its answer, then the process ends."""

import asyncio
import os
import signal
import time
from pathlib import Path

import aiohttp
import pytest

from harness import Portal, Service, StartClient, StartServer, eventually, files_named

GRACE_S = 10.0
"""Time that requests in progress have, as docs/server-and-client.md states it."""

BOUNDARY = b"----x"
UNREACHABLE = "http://127.0.0.1:9"


def form(*files: tuple[str, bytes]) -> bytes:
    """Return the body of an upload."""
    fields = [(b'name="user_id"', b"1"), (b'name="service"', b"example")]
    parts = [
        *fields,
        *((f'name="{name}"; filename="{name}"'.encode(), body) for name, body in files),
    ]
    return (
        b"".join(
            b"--%b\r\nContent-Disposition: form-data; %b\r\n\r\n%b\r\n" % (BOUNDARY, head, content)
            for head, content in parts
        )
        + b"--%b--\r\n" % BOUNDARY
    )


BODY = form(("run.sh", b"exit 0\n"), ("data", os.urandom(3_000_000)))


class HalfSent:
    """An upload of which the head and half of the body have been sent."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def to(cls, service: Service, path: str) -> "HalfSent":
        host, port = service.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(
            b"POST %b HTTP/1.1\r\nHost: %b\r\nContent-Length: %d\r\n"
            b"Content-Type: multipart/form-data; boundary=%b\r\n\r\n"
            % (path.encode(), host.encode(), len(BODY), BOUNDARY)
        )
        writer.write(BODY[: len(BODY) // 2])
        await writer.drain()
        return cls(reader, writer)

    async def finish(self) -> bytes:
        """Send the rest, and return the response up to the end of the connection."""
        self._writer.write(BODY[len(BODY) // 2 :])
        return await self.end()

    async def end(self) -> bytes:
        """Return what the service sends until it closes the connection."""
        async with asyncio.timeout(60):
            received = await self._reader.read()
        self._writer.close()
        return received


async def uploads_of(folder: Path, count: int) -> None:
    """Wait until ``count`` uploads have arrived in part, so that their requests are handled."""

    def begun() -> bool:
        return len([path for path in files_named("data", folder) if path.stat().st_size]) >= count

    async def all_begun() -> bool:
        return await asyncio.to_thread(begun)

    await eventually(all_begun)


async def refuses_connections(service: Service) -> None:
    """Wait until the service has closed its listening socket."""
    host, port = service.url.removeprefix("http://").split(":")

    async def refused() -> bool:
        try:
            _, writer = await asyncio.open_connection(host, int(port))
        except ConnectionRefusedError:
            return True
        writer.close()
        return False

    await eventually(refused)


@pytest.mark.parametrize("pause_s", [0.2, 1, 3, 6])
async def test_trap_68_upload_whose_rest_arrives_after_sigterm_is_answered(
    start_server: StartServer, pause_s: float
) -> None:
    server = await start_server(UNREACHABLE)
    upload = await HalfSent.to(server, "/upload")
    await uploads_of(server.folder, 1)
    server.send_signal(signal.SIGTERM)
    await asyncio.sleep(pause_s)
    answer = await upload.finish()
    answered_at = time.monotonic()
    assert answer.startswith(b"HTTP/1.1 201 "), answer
    assert b"\r\nConnection: close\r\n" in answer
    assert await server.died() == 0
    assert time.monotonic() - answered_at < GRACE_S / 2, "it ends with its last answer"
    assert "Traceback" not in server.logged


async def test_many_uploads_in_progress_at_sigterm_are_all_answered(
    start_server: StartServer,
) -> None:
    server = await start_server(UNREACHABLE)
    uploads = [await HalfSent.to(server, "/upload") for _ in range(40)]
    await uploads_of(server.folder, 40)
    server.send_signal(signal.SIGTERM)
    await refuses_connections(server)
    answers = await asyncio.gather(*(upload.finish() for upload in uploads))
    assert [answer[:13] for answer in answers] == [b"HTTP/1.1 201 "] * 40
    assert await server.died() == 0


async def test_upload_that_stalls_ends_after_the_grace_and_leaves_nothing(
    start_server: StartServer,
) -> None:
    server = await start_server(UNREACHABLE)
    upload = await HalfSent.to(server, "/upload")
    await uploads_of(server.folder, 1)
    signalled_at = time.monotonic()
    server.send_signal(signal.SIGTERM)
    assert await upload.end() == b""
    assert await server.died() == 0
    assert time.monotonic() - signalled_at > GRACE_S - 1
    assert "Traceback" not in server.logged
    assert not list((server.folder / "data").rglob("run.sh"))


async def test_second_signal_ends_the_grace(start_server: StartServer) -> None:
    server = await start_server(UNREACHABLE)
    upload = await HalfSent.to(server, "/upload")
    await uploads_of(server.folder, 1)
    server.send_signal(signal.SIGTERM)
    await refuses_connections(server)
    second_at = time.monotonic()
    server.send_signal(signal.SIGTERM)
    assert await upload.end() == b""
    assert await server.died() == 0
    assert time.monotonic() - second_at < GRACE_S - 1


async def test_idle_connections_and_streams_delay_no_stop(
    start_client: StartClient, start_server: StartServer, session: aiohttp.ClientSession
) -> None:
    server = await start_server(await start_client())
    portal = Portal(server.url, session)
    job = await portal.submit("sleep 4711\n")
    await portal.until(job, "Running")
    waiting = asyncio.create_task(portal.state(job, wait=60))
    paths = ("/events", f"/jobs/{job}/events", f"/jobs/{job}/logs?follow=1")
    opened = {path: asyncio.Event() for path in paths}
    streams = [
        asyncio.create_task(_read(session, f"{server.url}{path}", opened[path])) for path in paths
    ]
    for each in opened.values():
        await each.wait()
    await portal.state(job)  # its connection stays open, idle
    signalled_at = time.monotonic()
    server.send_signal(signal.SIGTERM)
    assert await server.died() == 0
    assert time.monotonic() - signalled_at < GRACE_S - 1
    assert (await waiting)["status"] == "Running"
    await asyncio.gather(*streams)


async def test_download_that_is_read_slowly_is_complete_after_sigterm(
    start_client: StartClient, start_server: StartServer, session: aiohttp.ClientSession
) -> None:
    server = await start_server(await start_client())
    portal = Portal(server.url, session)
    job = await portal.submit("head -c 30000000 /dev/urandom > out\n")
    await portal.end_of(job)
    async with session.get(f"{server.url}/download/{job}") as response:
        server.send_signal(signal.SIGTERM)
        await refuses_connections(server)
        assert len(await response.read()) == response.content_length
    assert await server.died() == 0


async def test_submission_in_progress_at_sigterm_of_a_client_is_answered(
    start_client: StartClient,
) -> None:
    client = await start_client()
    upload = await HalfSent.to(client, "/submit")
    await uploads_of(client.folder, 1)
    client.send_signal(signal.SIGTERM)
    await refuses_connections(client)
    answer = await upload.finish()
    assert answer.startswith(b"HTTP/1.1 503 "), answer
    assert b"takes no new payloads" in answer
    assert await client.died() == 0


async def _read(session: aiohttp.ClientSession, url: str, opened: asyncio.Event) -> None:
    """Read a stream until it ends or breaks off. ``opened`` is set when it begins."""
    try:
        async with session.get(url) as response:
            opened.set()
            await response.read()
    except aiohttp.ClientPayloadError:
        pass
