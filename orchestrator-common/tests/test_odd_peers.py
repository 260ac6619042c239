"""What is said of a server that does not answer as one should."""

import asyncio
import re
from collections.abc import Awaitable, Callable

import pytest

from job_orchestrator.sdk import ApiError, AsyncClient, ConnectionBroken, ServerUnreachable

Peer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
LIBRARY_TEXT = re.compile(r"ssl:|Errno|<\w+Error|_ssl\.c|message=|Operation not permitted")


def says(answer: bytes) -> Peer:
    """A peer that gives this answer to whatever it is asked, and closes the connection."""

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer)
        writer.close()

    return peer


async def failure(peer: Peer, scheme: str = "http") -> ApiError:
    """What a call to it raises."""
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
async def test_answer_that_breaks_off_is_told_as_what_a_restart_looks_like(head: bytes) -> None:
    error = await failure(says(HEAD + head))
    assert isinstance(error, ConnectionBroken)
    assert str(error).endswith(" broke off its answer; was it restarted?")


async def test_url_with_https_for_a_server_without_is_told_so() -> None:
    error = await failure(says(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "https")
    assert isinstance(error, ServerUnreachable)
    assert "(http, not https?)" in str(error)


async def test_url_with_http_for_a_server_that_hangs_up_asks_whether_it_wants_https() -> None:
    assert "does it want https?" in str(await failure(says(b"")))


async def test_what_is_no_http_is_told_in_a_line() -> None:
    error = str(await failure(says(b"nonsense\r\n\r\n")))
    assert "speaks no HTTP" in error
    assert "\n" not in error
