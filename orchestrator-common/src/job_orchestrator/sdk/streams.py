"""Streams that the server pushes: events and live output, resumed after a broken connection."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping

import aiohttp

from job_orchestrator.common.messages.jobs import Job, JobDetail
from job_orchestrator.common.messages.service import ClientList, ServiceList
from job_orchestrator.common.protocol.headers import JOB_ATTEMPT, LAST_EVENT_ID
from job_orchestrator.common.protocol.sse import Event, StreamBroken, read_events
from job_orchestrator.sdk.connection import READ_TIMEOUT_S, Connection, read_all
from job_orchestrator.sdk.errors import (
    ConnectionBroken,
    MachineUnavailable,
    ServerUnavailable,
)
from job_orchestrator.sdk.models import Change, decode

EVENT_TIMEOUT_S = 45.0
"""Three keep-alive comments, which the server sends every 15 s."""

FOLLOW_TIMEOUT_S = 60.0
"""A script may be silent for hours; after this time the same offset is requested again."""

REOPEN_DELAY_S = 0.5
"""Delay before a stream is reopened that the server ended properly, because it is stopping."""


async def changes(
    connection: Connection,
    path: str,
    params: Mapping[str, str | int],
    on_open: Callable[[], None] | None = None,
) -> AsyncGenerator[Change]:
    """Yield the events of the stream at ``path``, without a gap across broken connections.

    ``on_open`` is called each time that the stream has been opened. Never ends by itself: the
    caller stops at the event that it waits for. Raises ``ApiError``.
    """
    retries = connection.retries()
    last_id = ""
    while True:
        headers = {"Accept": "text/event-stream"}
        if last_id:
            headers[LAST_EVENT_ID] = last_id
        try:
            async with connection.open(
                "GET", path, params=params, headers=headers, read_timeout_s=EVENT_TIMEOUT_S
            ) as response:
                if on_open is not None:
                    on_open()
                async for event in read_events(response.content.iter_any()):
                    retries.reset()
                    last_id = event.id or last_id
                    change = _change(event, connection.url)
                    if change is not None:
                        yield change
        except ServerUnavailable as error:
            await retries.wait_after(error)
        except StreamBroken as error:
            await retries.wait_after(
                ConnectionBroken(f"{connection.url} sent a malformed event stream: {error}")
            )
        else:
            await asyncio.sleep(REOPEN_DELAY_S)


def _change(event: Event, url: str) -> Change | None:
    """Return the content of an event; None for a kind that this version does not know."""
    match event.kind:
        case "job":
            return decode(event.data, Job, url)
        case "services":
            return decode(event.data, ServiceList, url).services
        case "clients":
            return decode(event.data, ClientList, url).clients
    return None


async def log_blocks(
    connection: Connection,
    job_id: int,
    stream: str,
    offset: int,
    follow: bool,
    on_rerun: Callable[[int], None] | None = None,
) -> AsyncGenerator[bytes]:
    """Yield the bytes of ``stdout`` or ``stderr`` from ``offset`` on, each exactly once.

    With ``follow`` until the job has ended, otherwise the output so far. A broken connection is
    resumed. If the job is run again, because its client was lost, the output restarts at its
    beginning, after a call of ``on_rerun`` with the number of the attempt. Raises ``ApiError``.
    """
    retries = connection.retries()
    job = await job_detail(connection, job_id)
    attempt, received = 0, False
    while True:
        params: dict[str, str | int] = {"stream": stream, "offset": offset, "follow": int(follow)}
        read_timeout_s = FOLLOW_TIMEOUT_S if follow else READ_TIMEOUT_S
        complete = False
        try:
            async with connection.open(
                "GET", f"/jobs/{job_id}/logs", params=params, read_timeout_s=read_timeout_s
            ) as response:
                served = _attempt_of(response)
                if received and served != attempt:
                    attempt, offset, received = served, 0, False
                    if on_rerun is not None:
                        on_rerun(served)
                    continue
                attempt = served
                async for block in response.content.iter_any():
                    retries.reset()
                    offset += len(block)
                    received = True
                    yield block
            complete = True
        except MachineUnavailable as error:
            if not follow:
                raise
            await retries.wait_after(error)
        except ServerUnavailable as error:
            await retries.wait_after(error)
        if complete and (job.has_ended or not follow):
            return
        if complete:
            await asyncio.sleep(REOPEN_DELAY_S)
        job = await job_detail(connection, job_id)


def _attempt_of(response: aiohttp.ClientResponse) -> int:
    """Return the number of the attempt whose output the answer has."""
    text = response.headers.get(JOB_ATTEMPT, "")
    return int(text) if text.isascii() and text.isdigit() else 0


async def job_detail(connection: Connection, job_id: int) -> JobDetail:
    """Fetch a job with its history. Raises ``ApiError``."""
    body = await connection.call("GET", f"/jobs/{job_id}", read_all)
    return decode(body, JobDetail, connection.url)
