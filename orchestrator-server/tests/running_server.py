"""A jo-server that runs in the test's own loop, and a web app's view of it."""

import asyncio
import contextlib
import io
import sqlite3
import zipfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from job_orchestrator.server import keys


@dataclass
class Server:
    """A running server, and a web app's view of it."""

    app: web.Application
    http: aiohttp.ClientSession
    root: Path

    async def upload(
        self, *, user: Any = 1, service: str = "example", **files: bytes
    ) -> tuple[int, dict[str, Any]]:
        """Status code and JSON of an upload of a run.sh and some files."""
        form = aiohttp.FormData({"user_id": str(user), "service": service}, quote_fields=False)
        for name, content in {"run.sh": b"exit 0\n", **files}.items():
            form.add_field("file", content, filename=name)
        return await self.post(form)

    async def post(self, form: Any, **headers: str) -> tuple[int, dict[str, Any]]:
        """Status code and JSON of an upload."""
        async with self.http.post("/upload", data=form, headers=headers) as response:
            return response.status, await response.json()

    async def submit(self, **kwargs: Any) -> int:
        """Upload a job; its id."""
        status, answer = await self.upload(**kwargs)
        assert status == 201, answer
        return int(answer["id"])

    async def state(self, job_id: int, wait: float = 0) -> tuple[str, str]:
        """Status and message of a job; of a Completed one, there is no message."""
        async with self.http.get(f"/download/{job_id}", params={"wait": str(wait)}) as response:
            if response.content_type == "application/zip":
                return "Completed", ""
            answer = await response.json()
            return answer["status"], answer["message"]

    async def results(self, job_id: int, what: str = "download") -> zipfile.ZipFile:
        """The results of a job, or with ``download_partial`` what there is."""
        async with self.http.get(f"/{what}/{job_id}") as response:
            assert response.status == 200
            assert response.content_type == "application/zip"
            return zipfile.ZipFile(io.BytesIO(await response.read()))

    async def ended(self, job_id: int) -> tuple[str, str]:
        """Status and message at the end of a job."""
        status, message = await self.state(job_id, wait=30)
        assert status in ("Completed", "Failed", "Invalid", "Killed"), (status, message)
        return status, message

    async def until(self, job_id: int, status: str) -> None:
        """Wait until a job has a status."""
        with self.app[keys.FEED].following(job_id) as changes:
            while (await self.state(job_id))[0] != status:
                assert await changes.wait(20), await self.state(job_id)

    async def hears_clients(self) -> None:
        """Wait until every client has told its slots: then it is decided who gets the next job."""
        pool = self.app[keys.TERMINATION].clients
        await self.eventually(lambda: all(client.load is not None for client in pool))

    async def eventually(self, what: Callable[[], bool]) -> None:
        """Wait for something that tells nobody when it happens, as on the disk."""
        async with asyncio.timeout(20):
            while not what():  # noqa: ASYNC110 (there is no event)
                await asyncio.sleep(0.01)

    def rows(self, statement: str = "SELECT * FROM jobs") -> list[tuple[Any, ...]]:
        """Rows of the database, read beside the server."""
        with contextlib.closing(sqlite3.connect(self.root / "db.sqlite")) as database:
            return database.execute(statement).fetchall()

    def folders(self) -> list[str]:
        """What is in the data folder, but for the empty folder for uploads."""
        data = self.root / "data"
        found = [str(path.relative_to(data)) for path in data.rglob("*")]
        return sorted(name for name in found if name != "incoming")


StartServer = Callable[..., Awaitable[Server]]
