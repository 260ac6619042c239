"""Downloads that arrive with another digest than the server has announced."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from job_orchestrator.common.protocol.digests import repr_digest
from job_orchestrator.sdk import (
    AsyncClient,
    ConnectionBroken,
    LocalStorageFailed,
    ResultsDamaged,
)

CONTENT = b"PK" + bytes(100_000)
DAMAGED = CONTENT[:500] + b"?" + CONTENT[501:]
DIGEST = repr_digest(hashlib.sha256(CONTENT).digest())


class Peer:
    """Server that sends ``bodies`` one after the other, with one digest; the last one repeatedly.

    A body of None is cut off in its middle, and its rest is what the next request gets.
    """

    def __init__(self, *bodies: bytes | None, digest: str | None = DIGEST) -> None:
        self.requests: list[bytes] = []
        self._bodies = list(bodies)
        self._digest = digest

    @asynccontextmanager
    async def client(self, patience_s: float = 30) -> AsyncIterator[AsyncClient]:
        async with await asyncio.start_server(self._answer, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with AsyncClient(f"http://127.0.0.1:{port}", patience_s=patience_s) as client:
                yield client

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        self.requests.append(request)
        body = self._bodies.pop(0) if len(self._bodies) > 1 else self._bodies[0]
        content, status = CONTENT if body is None else body, "200 OK"
        if b"Range: bytes=" in request:
            start = int(request.partition(b"Range: bytes=")[2].partition(b"-")[0])
            content, status = content[start:], "206 Partial Content"
        head = [
            f"HTTP/1.1 {status}",
            "Content-Type: application/zip",
            'ETag: "1"',
            f"Content-Length: {len(content)}",
            "Connection: close",
        ]
        if self._digest is not None:
            head.append(f"Repr-Digest: {self._digest}")
        writer.write("\r\n".join([*head, "", ""]).encode())
        writer.write(content[: len(content) // 2] if body is None else content)
        await writer.drain()
        writer.close()


async def test_damaged_download_is_repeated_from_the_beginning(tmp_path: Path) -> None:
    peer, target = Peer(DAMAGED, CONTENT), tmp_path / "results.zip"
    async with peer.client() as client:
        await client.download(1, target)
    assert target.read_bytes() == CONTENT
    assert [b"Range:" in request for request in peer.requests] == [False, False]


async def test_digest_is_that_of_all_parts_of_a_resumed_download(tmp_path: Path) -> None:
    peer, target = Peer(None, CONTENT), tmp_path / "results.zip"
    async with peer.client() as client:
        await client.download(1, target)
    assert target.read_bytes() == CONTENT
    assert [b"Range:" in request for request in peer.requests] == [False, True]


async def test_download_that_stays_damaged_fails_and_leaves_nothing(tmp_path: Path) -> None:
    peer, target = Peer(DAMAGED), tmp_path / "results.zip"
    async with peer.client() as client:
        with pytest.raises(ResultsDamaged, match="Download them again"):
            await client.download(1, target)
    assert await asyncio.to_thread(os.listdir, tmp_path) == []
    assert len(peer.requests) == 3


async def test_digest_that_cannot_be_read_breaks_the_download(tmp_path: Path) -> None:
    peer = Peer(CONTENT, digest="sha-256=:AAAA:")
    async with peer.client(patience_s=0) as client:
        with pytest.raises(ConnectionBroken, match="a digest that can't be read"):
            await client.download(1, tmp_path / "results.zip")


async def test_existing_file_is_overwritten_only_on_request(tmp_path: Path) -> None:
    peer, target = Peer(CONTENT), tmp_path / "results.zip"
    target.write_bytes(b"mine")
    async with peer.client() as client:
        with pytest.raises(LocalStorageFailed, match=r"exists already.*overwrite=True"):
            await client.download(1, target)
        assert (target.read_bytes(), peer.requests) == (b"mine", [])
        await client.download(1, target, overwrite=True)
    assert target.read_bytes() == CONTENT


async def test_file_that_appears_during_a_download_is_kept(tmp_path: Path) -> None:
    peer, target = Peer(None, CONTENT), tmp_path / "results.zip"

    def create_once(_: int, __: int | None) -> None:
        target.write_bytes(b"mine")

    async with peer.client() as client:
        with pytest.raises(LocalStorageFailed, match="exists already"):
            await client.download(1, target, progress=create_once)
    assert await asyncio.to_thread(os.listdir, tmp_path) == ["results.zip"]
    assert target.read_bytes() == b"mine"


async def test_server_without_digests_is_believed(tmp_path: Path) -> None:
    target = tmp_path / "results.zip"
    async with Peer(DAMAGED, digest=None).client() as client:
        await client.download(1, target)
    assert target.read_bytes() == DAMAGED
