"""A large job from upload to download, with the duration of each hop.

The portal is a plain socket that sends one block repeatedly and drops the received data, as the
floors do. A second subscriber to the client's event stream records when the results are packed.
"""

import asyncio
import secrets
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http.client import HTTPResponse
from urllib.parse import urlsplit

import aiohttp
import msgspec

from bench import hops
from bench.floors.copying import BLOCK_BYTES, drain, send_repeatedly
from bench.http import Connection, UnexpectedAnswer, file_head, form_head
from bench.services import Pair
from job_orchestrator.common.protocol.sse import read_events

FIELDS = {"user_id": "1", "service": "bench"}
SCRIPT = b"exit 0\n"
TIMEOUT_S = 600.0
SHORTEST_S = 1e-4


@dataclass(frozen=True)
class RoundTrip:
    """Durations of the hops of a large job, and the size of its ZIP."""

    upload_s: float
    transfer_s: float
    pack_s: float
    fetch_s: float
    download_s: float
    whole_s: float
    zip_bytes: int


async def run_round_trip(services: Pair, block: bytes, size: int) -> RoundTrip:
    """Upload a file of ``size`` bytes with an empty script, and download the results."""
    begun = time.time()
    async with _payload_events(services.client.url) as seen:
        job_id = await asyncio.to_thread(_upload, services.server.url, block, size)
        uploaded = time.time()
        async with Connection(services.server.url) as portal, asyncio.timeout(TIMEOUT_S):
            await portal.until_ended(job_id)
        asked = time.time()
        zip_bytes = await asyncio.to_thread(_download, services.server.url, job_id)
        ended = time.time()
    states = hops.states(services.server.folder / "db.sqlite", job_id)
    return RoundTrip(
        upload_s=uploaded - begun,
        transfer_s=states["Submitted"] - states["Processing"],
        # The script ends immediately: the client begins to pack when it has the files.
        pack_s=seen["Completed"] - states["Submitted"],
        # The event of a small job may arrive after its results, which are in the same message.
        fetch_s=max(states["Completed"] - seen["Completed"], SHORTEST_S),
        download_s=ended - asked,
        whole_s=ended - begun,
        zip_bytes=zip_bytes,
    )


@asynccontextmanager
async def _payload_events(client_url: str) -> AsyncIterator[dict[str, float]]:
    """Record the arrival time of each event about a payload while the context lasts."""
    seen: dict[str, float] = {}

    async def follow(response: aiohttp.ClientResponse) -> None:
        async for event in read_events(response.content.iter_any()):
            if event.kind == "payload":
                seen[msgspec.json.decode(event.data)["status"]] = time.time()

    timeout = aiohttp.ClientTimeout(total=None)
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.get(f"{client_url}/events") as response,
    ):
        following = asyncio.create_task(follow(response))
        try:
            yield seen
        finally:
            following.cancel()


def _upload(url: str, block: bytes, size: int) -> int:
    """Submit the job and return its id. The file is never completely in memory."""
    boundary = secrets.token_hex(16)
    head = form_head(boundary, FIELDS) + file_head(boundary, "run.sh") + SCRIPT + b"\r\n"
    head += file_head(boundary, "atoms.pdb")
    tail = f"\r\n--{boundary}--\r\n".encode()
    with _connected(url) as peer:
        peer.sendall(
            f"POST /upload HTTP/1.1\r\nHost: bench\r\n"
            f"Content-Type: multipart/form-data; boundary={boundary}\r\n"
            f"Content-Length: {len(head) + size + len(tail)}\r\n\r\n".encode()
            + head
        )
        send_repeatedly(peer, block, size)
        peer.sendall(tail)
        with HTTPResponse(peer, method="POST") as answer:
            answer.begin()
            body = answer.read()
    if answer.status != 201:
        raise UnexpectedAnswer(f"{answer.status}: {body[:300]!r}")
    return int(msgspec.json.decode(body)["id"])


def _download(url: str, job_id: int) -> int:
    """Download and drop the results; return their size in bytes."""
    with _connected(url) as peer:
        peer.sendall(f"GET /download/{job_id} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
        received = b""
        while b"\r\n\r\n" not in received:
            received += peer.recv(BLOCK_BYTES)
        head, _, begun = received.partition(b"\r\n\r\n")
        lines = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        if lines[b"content-type"] != b"application/zip":
            raise UnexpectedAnswer(f"{received[:300]!r}")
        size = int(lines[b"content-length"])
        drain(peer, size - len(begun))
    return size


def _connected(url: str) -> socket.socket:
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname or "", parts.port or 80), timeout=TIMEOUT_S)
