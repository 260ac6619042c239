"""Compatibility with servers and clients that implement only the documented API."""

import asyncio
import io
import json
import zipfile
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from harness import Portal, StartClient, StartServer


class LegacyClient:
    """Client without event stream, keys and exit codes. Echoes uploads as lists of numbers."""

    def __init__(self) -> None:
        self.files: dict[int, dict[str, bytes]] = {}
        self.polls: dict[int, int] = {}

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/submit", self.submit)
        app.router.add_get("/retrieve/{id}", self.retrieve)
        app.router.add_get("/load", self.load)
        return app

    async def submit(self, request: web.Request) -> web.Response:
        files = {}
        async for part in await request.multipart():
            assert isinstance(part, aiohttp.BodyPartReader)
            files[part.filename or ""] = bytes(await part.read())
        self.files[payload := len(self.files) + 1] = files
        return web.json_response(self.payload(payload, "Prepared"))

    def payload(self, payload: int, status: str) -> dict[str, object]:
        echoed = {name: list(content) for name, content in self.files[payload].items()}
        return {"id": payload, "status": status, "loc": "/opt/data/x", "input": echoed}

    async def retrieve(self, request: web.Request) -> web.Response:
        payload = int(request.match_info["id"])
        self.polls[payload] = self.polls.get(payload, 0) + 1
        if self.polls[payload] == 1:
            return web.json_response(self.payload(payload, "Running"))
        if b"exit 1" in self.files[payload]["run.sh"]:
            return web.json_response(self.payload(payload, "Failed"))
        body = io.BytesIO()
        with zipfile.ZipFile(body, "w") as archive:
            archive.writestr("output.txt", "from a legacy client")
        return web.Response(body=body.getvalue(), content_type="application/zip")

    async def load(self, request: web.Request) -> web.Response:
        return web.json_response(12.5)


@pytest.fixture
async def legacy_client() -> AsyncIterator[str]:
    async with TestServer(LegacyClient().app()) as server:
        yield str(server.make_url("")).rstrip("/")


async def test_legacy_client_is_polled_and_its_results_are_fetched(
    legacy_client: str, start_server: StartServer, session: aiohttp.ClientSession
) -> None:
    portal = Portal((await start_server(legacy_client)).url, session)
    job = await portal.submit("exit 0\n", {"input.txt": b"\x00\xff"})
    await portal.until(job, "Running")
    await portal.until(job, "Completed")
    assert (await portal.results(job)).read("output.txt") == b"from a legacy client"


async def test_legacy_client_reports_a_failure_without_output(
    legacy_client: str, start_server: StartServer, session: aiohttp.ClientSession
) -> None:
    portal = Portal((await start_server(legacy_client)).url, session)
    job = await portal.submit("exit 1\n")
    state = await portal.end_of(job)
    assert state["status"] == "Failed"
    assert state["message"] == "The client reports Failed"


async def test_legacy_server_that_polls_gets_payloads_with_all_fields_and_the_zip(
    start_client: StartClient, session: aiohttp.ClientSession
) -> None:
    client = await start_client()
    form = aiohttp.FormData()
    form.add_field("run.sh", b"sleep 0.3; echo $((6 * 7)) > answer\n", filename="run.sh")
    async with session.post(f"{client.url}/submit", data=form) as response:
        payload = await response.json()
    assert response.status == 200
    statuses = []
    while True:
        assert set(payload) >= {"id", "input", "status", "loc", "pid", "killed"}
        assert 0 < payload["id"] < 2**32
        assert payload["input"] == {}
        assert isinstance(payload["pid"], int)
        statuses.append(payload["status"])
        await asyncio.sleep(0.1)  # a legacy server polls
        async with session.get(f"{client.url}/retrieve/{payload['id']}") as response:
            assert response.status == 200
            if response.content_type == "application/zip":
                archive = zipfile.ZipFile(io.BytesIO(await response.read()))
                break
            payload = await response.json()
    assert statuses[0] == "Prepared"
    assert set(statuses) <= {"Prepared", "Running"}
    assert archive.read("answer") == b"42\n"
    async with session.get(f"{client.url}/load") as response:
        assert 0 <= json.loads(await response.read()) <= 100
    async with session.get(f"{client.url}/retrieve/1") as response:
        assert response.status == 404
        assert (await response.json())["id"] == 0
