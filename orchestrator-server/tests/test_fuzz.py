"""Random answers of clients and random contents: only foreseen errors, and rules that hold.

``FUZZ_EXAMPLES`` (``make fuzz``) is the number of examples.
"""

import asyncio
import contextlib
import io
import os
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fake_client import zip_of
from job_orchestrator.common.protocol.multipart_writer import FormBody
from job_orchestrator.common.protocol.sse import StreamBroken
from job_orchestrator.server.clients.connector import TcpConnector
from job_orchestrator.server.clients.http import HttpTransport
from job_orchestrator.server.clients.http_connection import ClientConnection
from job_orchestrator.server.errors import ClientError
from job_orchestrator.server.files.base import BrokenArchive, check_archive
from job_orchestrator.server.files.zip_reader import NotAZip, read_directory, read_entries
from job_orchestrator.server.model import ClientUrls, StoredOutput
from sample_job import JOB

R = TypeVar("R")

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "50"))

# ---- what a client answers

HEADS = st.builds(
    lambda status, headers: (
        f"HTTP/1.1 {status} X\r\n".encode() + b"".join(headers) + b"Connection: close\r\n"
    ),
    st.sampled_from([200, 201, 204, 302, 400, 401, 404, 413, 500, 503, 507, 999]),
    st.lists(
        st.sampled_from(
            [
                b"Content-Type: application/json\r\n",
                b"Content-Type: application/zip\r\n",
                b"Content-Type: text/event-stream\r\n",
                b"Content-Type: ;;;\r\n",
                b"Content-Length: 3\r\n",
                b"Content-Length: 999\r\n",
                b"Content-Encoding: gzip\r\n",
                b"Transfer-Encoding: chunked\r\n",
                b"Idempotency-Key: other\r\n",
                b"Idempotency-Key: k\r\n",
                b"Location: http://127.0.0.1:9/\r\n",
                b"Retry-After: soon\r\n",
            ]
        ),
        max_size=4,
        unique=True,
    ),
)
CONTENTS = st.sampled_from(
    [
        b"",
        b"{}",
        b'{"id": 1, "status": "Completed"}',
        b'{"id": -1, "status": "Dancing"}',
        b'{"id": 1, "status": "Failed", "input": {"a": [1, 2]}, "message": 5}',
        b"[" * 1000,
        b"PK\x03\x04",
        b"event: payload\ndata: {}\n\n",
        b"3\r\nabc\r\n0\r\n\r\n",
        b"zz\r\nabc",
    ]
) | st.binary(max_size=100)
ANSWERS = st.builds(lambda head, body: head + b"\r\n" + body, HEADS, CONTENTS) | st.binary(
    max_size=60
)


class Sink:
    """Takes everything."""

    async def receive(
        self, blocks: AsyncIterator[bytes], sha256: bytes | None = None
    ) -> StoredOutput:
        return StoredOutput(sum([len(block) async for block in blocks]), b"")


def http_to(url: str) -> HttpTransport:
    urls = ClientUrls(f"{url}/submit", f"{url}/retrieve", f"{url}/kill")
    return HttpTransport(urls, ClientConnection(urls, TcpConnector(None)))


async def follow(api: HttpTransport) -> None:
    async with api.events() as events:
        async for _ in events:
            pass


def calls(api: HttpTransport) -> list[Coroutine[Any, Any, Any]]:
    """Each call to a client once."""
    body = FormBody([])
    body.load_if_small()
    return [
        api.submit(body, "k"),
        api.retrieve(1, "k", Sink()),
        api.retrieve_partial(1, Sink()),
        api.kill(1),
        api.acknowledge([1, 2]),
        api.load(),
        follow(api),
    ]


@given(answer=ANSWERS)
@settings(deadline=None, max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_a_client_answers_is_an_answer_or_a_client_error(answer: bytes) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
        writer.close()

    async def ask_all() -> None:
        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        api = http_to(url)
        try:
            async with asyncio.timeout(60):
                for call in calls(api):
                    # What an event stream breaks with is a domain error like any other.
                    with contextlib.suppress(ClientError, StreamBroken):
                        await call
        finally:
            await api.close()
            server.close()

    asyncio.run(ask_all())


WHOLE = zip_of(a="1", b="2" * 50)


@given(
    st.binary(max_size=100)
    | st.builds(
        lambda at, patch: WHOLE[:at] + patch + WHOLE[at + len(patch) :],
        st.integers(0, len(WHOLE)),
        st.binary(min_size=1, max_size=8),
    )
    | st.integers(0, len(WHOLE)).map(lambda end: WHOLE[:end])
)
@settings(max_examples=2 * EXAMPLES, deadline=None)
@example(WHOLE)
def test_archive_is_whole_or_broken(content: bytes) -> None:
    try:
        check_archive(JOB, io.BytesIO(content))
    except BrokenArchive:
        return
    file = io.BytesIO(content)
    with contextlib.suppress(NotAZip):
        for entry in read_entries(file, read_directory(file)):
            assert entry.size >= 0
