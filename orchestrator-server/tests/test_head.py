"""HEAD wherever GET is, with the same headers and no body."""

import asyncio

import pytest

from fake_client import FakeClient
from running_server import Server

VARYING = {"Date", "X-Request-ID", "Transfer-Encoding", "Connection"}

# The length of JSON and of metrics depends on the time of the request.


async def headers_of(server: Server, method: str, path: str) -> tuple[int, dict[str, str]]:
    """Return status and headers of a response; the body is not read, because it may not end."""
    async with (
        asyncio.timeout(20),
        server.http.request(method, path, allow_redirects=False) as response,
    ):
        shown = {name: value for name, value in response.headers.items() if name not in VARYING}
        if path == "/metrics" or shown.get("Content-Length") == "0":
            del shown["Content-Length"]
        if shown.get("Content-Type") == "application/json":
            del shown["Content-Length"]
        if method == "HEAD":
            assert await response.read() == b""
        return response.status, shown


async def test_trap_73_head_is_answered_like_get_on_every_route(
    server: Server, client: FakeClient
) -> None:
    completed = await server.submit()
    client.complete(await client.next_payload(), out="42")
    await server.ended(completed)
    running = await server.submit()
    await client.next_payload()
    await server.until(running, "Submitted")
    gets = {
        route.resource.canonical
        for route in server.app.router.routes()
        if route.method == "GET" and route.resource is not None
    }
    asked = [
        path.format(id=job, name="app.js", path="out")
        for job in (completed, running)
        for path in gets
    ]
    for path in sorted(set(asked)):
        got = await headers_of(server, "GET", path)
        assert await headers_of(server, "HEAD", path) == got, path
    status, headers = await headers_of(server, "HEAD", f"/download/{completed}")
    assert (status, headers["Accept-Ranges"]) == (200, "bytes")
    assert int(headers["Content-Length"]) > 0


async def test_head_of_endless_streams_ends(idle_server: Server) -> None:
    job = await idle_server.submit()
    for path in ("/events", f"/jobs/{job}/events", f"/jobs/{job}/logs?follow=1"):
        assert (await headers_of(idle_server, "HEAD", path))[0] == 200


@pytest.mark.parametrize(("path", "status"), [("/download/99", 404), ("/nothing", 404)])
async def test_head_of_what_is_missing_has_the_status_of_get(
    server: Server, path: str, status: int
) -> None:
    assert (await headers_of(server, "HEAD", path))[0] == status


async def test_method_that_is_not_allowed_names_head(server: Server) -> None:
    async with server.http.post("/jobs") as response:
        assert (response.status, response.headers["Allow"]) == (405, "GET,HEAD")
