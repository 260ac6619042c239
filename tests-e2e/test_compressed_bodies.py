"""Compressed request bodies are rejected before they are received, and never unpacked."""

import asyncio
import gzip
from urllib.parse import urlsplit

import pytest

from harness import Service, StartClient, StartServer

BODIES = {"gzip": b"abcde", "deflate": gzip.compress(bytes(1 << 20)), "br": b"x", "zstd": b"x"}


async def post(service: Service, path: str, encoding: str, body: bytes) -> bytes:
    """Send a request and return the whole response, until the service closes the connection."""
    parts = urlsplit(service.url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(
        f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Encoding: {encoding}\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\n"
        f"Content-Length: {len(body)}\r\n\r\n".encode()
    )
    writer.write(body)
    async with asyncio.timeout(60):
        answer = await reader.read()
    writer.close()
    return answer


@pytest.mark.parametrize("name", ["jo-server", "jo-client"])
async def test_compressed_body_is_refused_and_never_unpacked(
    start_client: StartClient, start_server: StartServer, name: str
) -> None:
    client = await start_client()
    server = await start_server(client)
    service, path = (server, "/upload") if name == "jo-server" else (client, "/submit")
    for encoding, body in BODIES.items():
        for each in (path, "/nothing", "/"):
            answer = await post(service, each, encoding, body)
            head, _, content = answer.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 415 "), answer
            assert b"Accept-Encoding: identity" in head
            assert b'"message":"Content-Encoding' in content
    assert (await post(service, path, "identity", b"abc")).startswith(b"HTTP/1.1 400 ")
    assert "Traceback" not in service.logged
    assert "nhandled" not in service.logged
