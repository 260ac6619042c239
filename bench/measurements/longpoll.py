"""Delay between the end of a job and the response to many waiting requests."""

import asyncio
import os
import resource
import select
import socket
import statistics
import time
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

from bench import hops
from bench.http import Connection, Form, UnexpectedAnswer
from bench.outcome import Outcome, Row
from bench.services import pair
from bench.sizes import Size

WITHIN_MS = 100.0
ANSWERED_WITHIN_S = 60.0
SPARE_DESCRIPTORS = 500


async def measure(folder: Path, size: Size) -> Outcome:
    """Request the results of one job over ``waiting`` connections, then let it end."""
    _allow_descriptors(size.waiting + SPARE_DESCRIPTORS)
    gate = folder / "gate"
    os.mkfifo(gate)
    form = Form.of(
        {"user_id": "1", "service": "bench"},
        {"run.sh": f"read -r line < '{gate}'\nexit 0\n".encode()},
    )
    lags: list[float] = []
    since_script: list[float] = []
    async with (
        pair(folder) as services,
        Connection(services.server.url) as portal,
    ):
        for _ in range(size.waiting_rounds):
            job_id = await portal.submit(form)
            await portal.until_running(job_id)
            answered = await asyncio.to_thread(
                _wait_for, services.server.url, job_id, size.waiting, gate, size.settle_s
            )
            ended = hops.states(services.server.folder / "db.sqlite", job_id)["Completed"]
            _, script_ended = hops.script(await portal.result(job_id))
            lags.append((max(answered) - ended) * 1000)
            since_script.append((max(answered) - script_ended) * 1000)
    row = Row(
        f"the last of {size.waiting} that wait is answered, after the job's end",
        statistics.median(lags),
        "ms",
        WITHIN_MS,
        f"at most {WITHIN_MS:g} ms",
    )
    return Outcome([row], {"after_completed_ms": lags, "after_script_ms": since_script})


def _wait_for(url: str, job_id: int, count: int, gate: Path, settle_s: float) -> list[float]:
    """Open the gate when all connections wait. Return the time of each response."""
    parts = urlsplit(url)
    request = f"GET /download/{job_id}?wait=60 HTTP/1.1\r\nHost: bench\r\n\r\n".encode()
    with ExitStack() as stack:
        waiting: dict[int, socket.socket] = {}
        poll = stack.enter_context(select.epoll())
        for _ in range(count):
            address = (parts.hostname or "", parts.port or 80)
            peer = stack.enter_context(socket.create_connection(address))
            peer.sendall(request)
            waiting[peer.fileno()] = peer
            poll.register(peer, select.EPOLLIN)
        if poll.poll(settle_s + 0.2):
            raise UnexpectedAnswer("a request was answered before the job's end")
        gate.write_text("\n")
        return _answers(poll, waiting)


def _answers(poll: select.epoll, waiting: dict[int, socket.socket]) -> list[float]:
    """Return the time of each response. Their content is checked only after the last."""
    answered: list[float] = []
    received: list[bytes] = []
    until = time.monotonic() + ANSWERED_WITHIN_S
    while len(answered) < len(waiting):
        if not (ready := poll.poll(until - time.monotonic())):
            raise TimeoutError(f"{len(waiting) - len(answered)} requests were not answered")
        for descriptor, _ in ready:
            received.append(waiting[descriptor].recv(1 << 16))
            answered.append(time.time())
            poll.unregister(descriptor)
    if not all(b"application/zip" in answer and b"PK" in answer for answer in received):
        raise UnexpectedAnswer("a response is not a ZIP")
    return answered


def _allow_descriptors(count: int) -> None:
    """Raise the limit of open files for this process and the services, which inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(count, hard)), hard))
