"""HEAD wherever GET is, with the same headers and no body."""

import asyncio

from running_client import Client

VARYING = {"Date", "X-Request-ID", "Transfer-Encoding", "Connection"}

# The length of JSON and of metrics depends on the time of the request.


async def headers_of(client: Client, method: str, path: str) -> tuple[int, dict[str, str]]:
    """Return status and headers of a response; the body is not read, because it may not end."""
    async with (
        asyncio.timeout(20),
        client.http.request(method, path, allow_redirects=False) as response,
    ):
        shown = {name: value for name, value in response.headers.items() if name not in VARYING}
        if path == "/metrics":
            del shown["Content-Length"]
        if shown.get("Content-Type") == "application/json":
            del shown["Content-Length"]
        if method == "HEAD":
            assert await response.read() == b""
        return response.status, shown


async def test_trap_73_head_is_answered_like_get_on_every_route(client: Client) -> None:
    completed = (await client.run("echo 42 > out"))["id"]
    failed = (await client.run("exit 1"))["id"]
    gets = {
        route.resource.canonical
        for route in client.app.router.routes()
        if route.method == "GET" and route.resource is not None
    }
    asked = {path.format(id=payload) for payload in (completed, failed, 7) for path in gets}
    assert f"/retrieve_partial/{failed}" in asked
    for path in sorted(asked):
        got = await headers_of(client, "GET", path)
        assert await headers_of(client, "HEAD", path) == got, path
