"""Minimal HTTP/1.1 client that acts as the portal.

It shares the cores with the measured services, so it has to use little CPU time: one persistent
connection, bodies prepared in advance, and only the features of HTTP that the services use.
"""

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import msgspec

TIMEOUT_S = 120.0
POLL_S = 0.02


class UnexpectedAnswer(Exception):
    """A service responded with something that a measurement does not expect."""


@dataclass(frozen=True)
class Answer:
    """A response with its body."""

    status: int
    content_type: str
    body: bytes

    def json(self) -> dict[str, object]:
        """Decode the body as a JSON object."""
        return msgspec.json.decode(self.body, type=dict[str, object])


@dataclass(frozen=True)
class Form:
    """A multipart/form-data body that is prepared in memory."""

    content_type: str
    body: bytes

    @classmethod
    def of(cls, fields: Mapping[str, str], files: Mapping[str, bytes]) -> "Form":
        """Create a form with these fields and files."""
        boundary = secrets.token_hex(16)
        body = form_head(boundary, fields)
        for path, content in files.items():
            body += file_head(boundary, path) + content + b"\r\n"
        body += f"--{boundary}--\r\n".encode()
        return cls(f"multipart/form-data; boundary={boundary}", body)


def form_head(boundary: str, fields: Mapping[str, str]) -> bytes:
    """Encode the fields of a form."""
    return b"".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    )


def file_head(boundary: str, path: str) -> bytes:
    """Encode the part of a form before the content of a file."""
    filename = path.rpartition("/")[2]
    return (
        f'--{boundary}\r\nContent-Disposition: form-data; name="{path}"; filename="{filename}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    ).encode()


class Connection:
    """One connection to a service, as an async context manager."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def __aenter__(self) -> Self:
        self._streams = await asyncio.open_connection(self._host, self._port)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self._streams is not None:
            self._streams[1].close()

    async def get(self, path: str, headers: str = "") -> Answer:
        """Send a GET request and return the response."""
        head = f"GET {path} HTTP/1.1\r\nHost: {self._host}\r\n{headers}\r\n"
        return await self._request(head.encode())

    async def post(self, path: str, form: Form) -> Answer:
        """Send a POST request with a form and return the response."""
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {self._host}\r\nContent-Type: {form.content_type}\r\n"
            f"Content-Length: {len(form.body)}\r\n\r\n"
        )
        return await self._request(head.encode() + form.body)

    async def submit(self, form: Form) -> int:
        """Submit a job and return its id."""
        answer = await self.post("/upload", form)
        if answer.status != 201:
            raise UnexpectedAnswer(f"{answer.status}: {answer.body[:300]!r}")
        return int(str(answer.json()["id"]))

    async def result(self, job_id: int) -> bytes:
        """Wait for the end of a job and return its ZIP."""
        while True:
            answer = await self.get(f"/download/{job_id}?wait=60")
            if answer.content_type == "application/zip":
                return answer.body
            _unfinished(answer)

    async def until_running(self, job_id: int) -> None:
        """Wait until a job runs."""
        async with asyncio.timeout(TIMEOUT_S):
            while _unfinished(await self.get(f"/download/{job_id}")) != "Running":  # noqa: ASYNC110
                await asyncio.sleep(POLL_S)  # there is no event

    async def until_ended(self, job_id: int) -> None:
        """Wait until a job is Completed, and fetch only one byte of its results."""
        while True:
            answer = await self.get(f"/download/{job_id}?wait=60", "Range: bytes=0-0\r\n")
            if answer.status == 206:
                return
            _unfinished(answer)

    async def _request(self, request: bytes) -> Answer:
        if self._streams is None:
            raise RuntimeError("not connected")
        reader, writer = self._streams
        writer.write(request)
        async with asyncio.timeout(TIMEOUT_S):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {
                name.lower(): value.strip()
                for name, _, value in (line.partition(":") for line in head[1:])
            }
            body = await reader.readexactly(int(headers["content-length"]))
        content_type = headers.get("content-type", "").partition(";")[0]
        return Answer(int(head[0].split(" ")[1]), content_type, body)


async def submit_all(portals: Sequence[Connection], forms: Sequence[Form], count: int) -> None:
    """Submit ``count`` jobs with ``forms`` in rotation, over all connections concurrently."""
    numbers = iter(range(count))

    async def submit(portal: Connection) -> None:
        for number in numbers:
            await portal.submit(forms[number % len(forms)])

    async with asyncio.TaskGroup() as group:
        for portal in portals:
            group.create_task(submit(portal))


def _unfinished(answer: Answer) -> str:
    """Return the status of a job that must not have ended yet."""
    status = str(answer.json().get("status")) if answer.status == 200 else ""
    if status not in ("Queued", "Processing", "Submitted", "Running"):
        raise UnexpectedAnswer(f"{answer.status}: {answer.body[:300]!r}")
    return status
