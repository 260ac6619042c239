"""A jo-server that runs in the loop of the test, as a web app sees it."""

import asyncio
import contextlib
import io
import os
import sqlite3
import zipfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from job_orchestrator.server import keys
from job_orchestrator.server.clients.registry import ClientRegistry
from job_orchestrator.server.tuning import Tuning


@dataclass
class Server:
    """A running server, as a web app sees it."""

    app: web.Application
    url: URL
    http: aiohttp.ClientSession
    root: Path

    async def upload(
        self, *, user: Any = 1, service: str = "example", **files: bytes
    ) -> tuple[int, dict[str, Any]]:
        """Upload a run.sh and some files; return status code and JSON."""
        form = aiohttp.FormData({"user_id": str(user), "service": service}, quote_fields=False)
        for name, content in {"run.sh": b"exit 0\n", **files}.items():
            form.add_field("file", content, filename=name)
        return await self.post(form)

    async def post(self, form: Any, **headers: str) -> tuple[int, dict[str, Any]]:
        """Upload a form; return status code and JSON."""
        async with self.http.post("/upload", data=form, headers=headers) as response:
            return response.status, await response.json()

    async def submit(self, **kwargs: Any) -> int:
        """Upload a job; return its id."""
        status, answer = await self.upload(**kwargs)
        assert status == 201, answer
        return int(answer["id"])

    async def state(self, job_id: int, wait: float = 0) -> tuple[str, str]:
        """Return status and message of a job; the message is empty if it is Completed."""
        async with self.http.get(f"/download/{job_id}", params={"wait": str(wait)}) as response:
            if response.content_type == "application/zip":
                return "Completed", ""
            answer = await response.json()
            return answer["status"], answer["message"]

    async def get_json(self, path: str) -> Any:
        """Fetch a path and return its JSON."""
        async with self.http.get(path) as response:
            assert response.status == 200, await response.text()
            return await response.json()

    async def results(self, job_id: int, route: str = "download") -> zipfile.ZipFile:
        """Return the results of a job, or with ``download_partial`` its output so far."""
        async with self.http.get(f"/{route}/{job_id}") as response:
            assert response.status == 200
            assert response.content_type == "application/zip"
            return zipfile.ZipFile(io.BytesIO(await response.read()))

    async def ended(self, job_id: int) -> tuple[str, str]:
        """Wait for the end of a job; return status and message."""
        status, message = await self.state(job_id, wait=60)
        assert status in ("Completed", "Failed", "Invalid", "Killed"), (status, message)
        return status, message

    async def until(self, job_id: int, status: str) -> None:
        """Wait until a job has a status."""
        with self.app[keys.FEED].following(job_id) as changes:
            while (await self.state(job_id))[0] != status:
                assert await changes.wait(60), await self.state(job_id)

    @property
    def clients(self) -> ClientRegistry:
        """The clients, as the server knows them."""
        return self.app[keys.CLIENTS]

    async def hears_clients(self) -> None:
        """Wait until every client has reported its slots, so that placement is determined."""
        await self.eventually(lambda: all(client.load is not None for client in self.clients))

    async def eventually(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition that no event announces, such as a file on the disk."""
        async with asyncio.timeout(60):
            while not condition():  # noqa: ASYNC110 (there is no event)
                await asyncio.sleep(0.01)

    def rows(self, statement: str = "SELECT * FROM jobs") -> list[tuple[Any, ...]]:
        """Read rows of the database over a connection that the server does not use."""
        with contextlib.closing(sqlite3.connect(self.root / "db.sqlite")) as database:
            return database.execute(statement).fetchall()

    def folders(self) -> list[str]:
        """List the data folder, without the empty folder for uploads."""
        data = self.root / "data"
        # Unlike Path.rglob, os.walk goes on when the server removes a folder.
        found = [
            os.path.relpath(Path(folder, name), data)
            for folder, folders, files in os.walk(data)
            for name in folders + files
        ]
        return sorted(name for name in found if name != "incoming")


StartServer = Callable[..., Awaitable[Server]]


in_folders = pytest.mark.parametrize("inline_limit", ["0"], ids=["in folders"])
"""Run a test with servers that store files of any size in folders."""

in_both_forms = pytest.mark.parametrize("inline_limit", ["0", "64kB"], ids=["folder", "database"])
"""Run a test with small files in folders, and with small files in the database."""


def tuned(**values: Any) -> pytest.MarkDecorator:
    """Run a test with servers whose ``Tuning`` has these values."""
    return pytest.mark.parametrize("tuning", [Tuning(**values)], ids=["tuned"])
