"""Requests that wait for the end of one job (``?wait=``): what each of them is answered."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

import pytest

from fake_client import FakeClient, StartClient
from job_orchestrator.common.status import PayloadStatus
from job_orchestrator.server import keys
from job_orchestrator.server.web.long_polls import LONG_POLLS
from running_server import Server, StartServer

ORIGIN = "https://portal.example"


@dataclass
class Answer:
    """A response as it arrived."""

    status: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Connection:
    """A connection that sends requests as they are, and reads what arrives."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def get(self, path: str, *lines: str, version: str = "HTTP/1.1") -> None:
        """Send a request."""
        self.writer.write(
            "\r\n".join([f"GET {path} {version}", "Host: x", *lines, "", ""]).encode()
        )

    async def answer(self) -> Answer:
        """Read a response."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in head[1:] if line)
        body = await self.reader.readexactly(int(headers["Content-Length"]))
        return Answer(head[0], headers, body)


@contextlib.asynccontextmanager
async def connected(server: Server) -> AsyncIterator[Connection]:
    reader, writer = await asyncio.open_connection(server.url.host, server.url.port)
    try:
        yield Connection(reader, writer)
    finally:
        writer.close()
        await writer.wait_closed()


async def running(server: Server, client: FakeClient) -> tuple[int, int]:
    """Submit a job; return its id and its payload when it runs."""
    job = await server.submit()
    payload = await client.next_payload()
    client.report(payload, PayloadStatus.RUNNING)
    await server.until(job, "Running")
    return job, payload


async def wait_together(server: Server, job: int, count: int) -> None:
    """Wait until ``count`` requests wait for a job."""
    await server.eventually(lambda: server.app[LONG_POLLS].waiting(job) == count)


async def test_each_request_is_answered_as_if_it_were_alone(
    server: Server, client: FakeClient
) -> None:
    job, payload = await running(server, client)
    async with contextlib.AsyncExitStack() as stack:
        waiting = [await stack.enter_async_context(connected(server)) for _ in range(5)]
        for number, connection in enumerate(waiting):
            connection.get(f"/download/{job}?wait=60", f"X-Request-Id: request-{number}")
        await wait_together(server, job, 5)
        client.complete(payload)
        answers = [await connection.answer() for connection in waiting]
        waiting[0].get(f"/download/{job}", "X-Request-Id: request-0")
        alone = await waiting[0].answer()
        assert [answer.headers["X-Request-Id"] for answer in answers] == [
            f"request-{number}" for number in range(5)
        ]
        for answer in answers:
            same = {"X-Request-Id": "request-0", "Date": alone.headers["Date"]}
            assert {**answer.headers, **same} == alone.headers
            assert (answer.status, answer.body) == ("HTTP/1.1 200 OK", alone.body)
        # The connections go on.
        for connection in waiting:
            connection.get("/")
            assert (await connection.answer()).body.startswith(b'{"message":"pong"')


async def test_only_answers_to_allowed_pages_name_their_origin(
    start_server: StartServer, start_client: StartClient, client: FakeClient
) -> None:
    server = await start_server(await start_client(client), CORS_ORIGINS=ORIGIN)
    job, payload = await running(server, client)
    async with connected(server) as allowed, connected(server) as other:
        allowed.get(f"/download/{job}?wait=60", f"Origin: {ORIGIN}")
        other.get(f"/download/{job}?wait=60")
        await wait_together(server, job, 2)
        client.complete(payload)
        answers = await allowed.answer(), await other.answer()
    origins = [answer.headers.get("Access-Control-Allow-Origin") for answer in answers]
    assert origins == [ORIGIN, None]
    assert [answer.headers["Vary"] for answer in answers] == ["Origin", "Origin"]


async def test_request_for_a_range_gets_it_and_the_others_get_everything(
    server: Server, client: FakeClient
) -> None:
    job, payload = await running(server, client)
    async with connected(server) as part, connected(server) as whole:
        part.get(f"/download/{job}?wait=60", "Range: bytes=0-1")
        whole.get(f"/download/{job}?wait=60")
        await wait_together(server, job, 2)
        client.complete(payload)
        parts, everything = await part.answer(), await whole.answer()
    assert (parts.status.split()[1], parts.body) == ("206", b"PK")
    assert (everything.status.split()[1], everything.body[:2]) == ("200", b"PK")


@pytest.mark.parametrize(
    ("version", "lines"), [("HTTP/1.0", ()), ("HTTP/1.1", ("Connection: close",))]
)
async def test_connection_that_ends_with_the_answer_is_closed_after_it(
    server: Server, client: FakeClient, version: str, lines: tuple[str, ...]
) -> None:
    job, payload = await running(server, client)
    async with connected(server) as connection:
        connection.get(f"/download/{job}?wait=60", *lines, version=version)
        await wait_together(server, job, 1)
        client.complete(payload)
        assert (await connection.answer()).body.startswith(b"PK")
        assert await connection.reader.read() == b""


async def test_request_that_was_given_up_does_not_disturb_the_others(
    server: Server, client: FakeClient
) -> None:
    job, payload = await running(server, client)
    async with connected(server) as stays:
        async with connected(server) as leaves:
            leaves.get(f"/download/{job}?wait=60")
            await wait_together(server, job, 1)
            stays.get(f"/download/{job}?wait=60")
            await wait_together(server, job, 2)
        await wait_together(server, job, 1)
        client.complete(payload)
        assert (await stays.answer()).body.startswith(b"PK")
    assert server.app[LONG_POLLS].waiting(job) == 0
    assert server.app[keys.FEED].waiters == 0


async def test_last_request_that_is_given_up_ends_the_wait(
    server: Server, client: FakeClient
) -> None:
    job, payload = await running(server, client)
    async with connected(server) as leaves:
        leaves.get(f"/download/{job}?wait=60")
        await wait_together(server, job, 1)
    await server.eventually(lambda: server.app[keys.FEED].waiters == 0)
    client.complete(payload)
    assert (await server.state(job, wait=60))[0] == "Completed"


async def test_requests_of_a_job_that_fails_get_its_state(
    server: Server, client: FakeClient
) -> None:
    job, payload = await running(server, client)
    states = [asyncio.create_task(server.state(job, wait=60)) for _ in range(3)]
    await wait_together(server, job, 3)
    client.report(payload, PayloadStatus.FAILED, message="broken")
    assert {(await state)[0] for state in states} == {"Failed"}


async def test_requests_with_different_limits_are_answered_at_their_own_times(
    server: Server, client: FakeClient
) -> None:
    job, payload = await running(server, client)
    long = asyncio.create_task(server.state(job, wait=60))
    await wait_together(server, job, 1)
    assert (await server.state(job, wait=0.05))[0] == "Running"
    assert not long.done()
    client.complete(payload)
    assert (await long)[0] == "Completed"


async def test_unknown_job_is_reported_to_all_that_wait_for_it(idle_server: Server) -> None:
    paths = ["/download/77?wait=60"] * 3
    async with asyncio.TaskGroup() as group:
        responses = [group.create_task(idle_server.http.get(path)) for path in paths]
    assert [response.result().status for response in responses] == [404, 404, 404]
