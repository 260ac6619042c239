"""A jo-client that runs in the event loop of the test, as a server sees it."""

import asyncio
import contextlib
import io
import json
import os
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import psutil
from aiohttp import web
from yarl import URL

from job_orchestrator.common.protocol.sse import Event, read_events

FINAL = {"Completed", "Failed", "Invalid", "Killed"}


@dataclass
class Client:
    """A running client, with an HTTP session to it."""

    app: web.Application
    url: URL
    http: aiohttp.ClientSession
    data: Path

    async def post(
        self,
        script: bytes | str,
        *,
        key: str | None = None,
        time_limit: str | None = None,
        fields: Sequence[tuple[str, str]] = (),
        **files: bytes,
    ) -> tuple[int, dict[str, Any]]:
        """Submit a run.sh and other files; return status code and JSON."""
        form = aiohttp.FormData(fields, quote_fields=False)
        content = script.encode() if isinstance(script, str) else script
        for name, data in {"run.sh": content, **files}.items():
            form.add_field(name, data, filename=name.rpartition("/")[2])
        given = {"Idempotency-Key": key, "Time-Limit": time_limit}
        headers = {name: value for name, value in given.items() if value}
        async with self.http.post("/submit", data=form, headers=headers) as response:
            return response.status, await response.json()

    async def submit(self, script: bytes | str, **kwargs: Any) -> int:
        """Submit a payload; return its id."""
        status, payload = await self.post(script, **kwargs)
        assert status == 200, payload
        return int(payload["id"])

    async def get(self, payload: int) -> dict[str, Any]:
        """Return the payload's JSON; of a Completed payload, only id and status."""
        async with self.http.get(f"/retrieve/{payload}") as response:
            if response.content_type == "application/zip":
                return {"id": payload, "status": "Completed"}
            return dict(await response.json())

    async def kill(self, payload: int) -> dict[str, Any]:
        """Terminate a payload; return its JSON."""
        async with self.http.post(f"/kill/{payload}") as response:
            assert response.status == 200
            return dict(await response.json())

    async def archive(self, payload: int, what: str = "retrieve_partial") -> zipfile.ZipFile:
        """Fetch the results."""
        async with self.http.get(f"/{what}/{payload}") as response:
            assert response.content_type == "application/zip", await response.text()
            return zipfile.ZipFile(io.BytesIO(await response.read()))

    @asynccontextmanager
    async def events(self) -> AsyncIterator[AsyncIterator[Event]]:
        """Open the event stream."""
        async with self.http.get("/events") as response:
            assert response.content_type == "text/event-stream"
            yield read_events(response.content.iter_any())

    async def run(self, script: bytes | str, **kwargs: Any) -> dict[str, Any]:
        """Submit a payload and follow its events to the end; return its event and JSON."""
        async with asyncio.timeout(60), self.events() as events:
            payload = await self.submit(script, **kwargs)
            async for event in events:
                data = json.loads(event.data)
                if event.kind == "payload" and data["id"] == payload and data["status"] in FINAL:
                    return {**data, **await self.get(payload)}
        raise AssertionError("the event stream ended")

    async def until(self, payload: int, status: str) -> None:
        """Poll until the payload has a status, as a server without the event stream does."""
        async with asyncio.timeout(60):
            while (await self.get(payload))["status"] != status:  # noqa: ASYNC110 (polling)
                await asyncio.sleep(0.01)

    async def eventually(self, condition: Callable[[], bool]) -> None:
        """Poll until a condition holds that no event reports, such as the start of a process."""
        async with asyncio.timeout(60):
            while not await asyncio.to_thread(condition):  # noqa: ASYNC110 (there is no event)
                await asyncio.sleep(0.01)

    def processes(self) -> list[psutil.Process]:
        """Find the living processes of all payloads of this client."""
        found = []
        for process in psutil.process_iter():
            try:
                workspace = process.environ().get("JO_WORKSPACE", "")
                if workspace.startswith(str(self.data)) and process.status() != "zombie":
                    found.append(process)
            except psutil.Error:
                continue
        return found


StartClient = Callable[..., Awaitable[Client]]


def adopted() -> set[psutil.Process]:
    """Find the scripts, and orphans of scripts, that are children of this process.

    Children in the session of this process are not included: tests start them.
    """
    found = set()
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getsid(child.pid) != os.getsid(0):
                found.add(child)
    return found


_OF_EARLIER_TESTS: set[psutil.Process] = set()
"""Children that an earlier test left; without a running client nothing reaps them."""


def exempt_from_zombies(children: set[psutil.Process]) -> None:
    """Leave ``children``, those of earlier tests, out of the result of ``zombies``."""
    _OF_EARLIER_TESTS.clear()
    _OF_EARLIER_TESTS.update(children)


def zombies() -> list[psutil.Process]:
    """Find scripts, and orphans of scripts, of this test that have ended and were not reaped."""
    found = []
    for child in adopted() - _OF_EARLIER_TESTS:
        with contextlib.suppress(psutil.NoSuchProcess):
            if child.status() == psutil.STATUS_ZOMBIE:
                found.append(child)
    return found
