"""Errors for servers that do not answer as they should."""

import asyncio
import re
from collections.abc import Awaitable, Callable

import pytest

from job_orchestrator.sdk import ApiError, AsyncClient, ConnectionBroken, ServerUnreachable

Peer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
LIBRARY_TEXT = re.compile(r"ssl:|Errno|<\w+Error|_ssl\.c|message=|Operation not permitted")


def answering(answer: bytes) -> Peer:
    """Return a peer that sends ``answer`` to any request and closes the connection."""

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer)
        writer.close()

    return peer


async def failure(peer: Peer, scheme: str = "http") -> ApiError:
    """Return the error of a call to ``peer``, which names no class or errno of a library."""
    async with await asyncio.start_server(peer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with AsyncClient(f"{scheme}://127.0.0.1:{port}", patience_s=0) as client:
            with pytest.raises(ApiError) as raised:
                await client.clients()
    assert not LIBRARY_TEXT.search(str(raised.value)), raised.value
    return raised.value


@pytest.mark.parametrize(
    "head", [b"Content-Length: 50\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n5"]
)
async def test_incomplete_answer_is_a_broken_connection_and_suggests_a_restart(head: bytes) -> None:
    error = await failure(answering(HEAD + head))
    assert isinstance(error, ConnectionBroken)
    assert str(error).endswith(" closed the connection during an answer; was it restarted?")


async def test_https_url_of_a_server_without_tls_is_reported_as_such() -> None:
    error = await failure(answering(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "https")
    assert isinstance(error, ServerUnreachable)
    assert "(http, not https?)" in str(error)


async def test_http_url_of_a_server_that_hangs_up_suggests_https() -> None:
    assert "does it require https?" in str(await failure(answering(b"")))


async def test_answer_that_is_not_http_is_reported_in_one_line() -> None:
    error = str(await failure(answering(b"nonsense\r\n\r\n")))
    assert "does not answer in valid HTTP" in error
    assert "\n" not in error
