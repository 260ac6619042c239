"""What the server pushes: events and live output, resumed where they broke off."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping

from job_orchestrator.common.protocol.headers import LAST_EVENT_ID
from job_orchestrator.common.protocol.sse import Event, StreamBroken, read_events
from job_orchestrator.sdk.connection import SILENCE_S, Connection, read_all
from job_orchestrator.sdk.errors import (
    ConnectionBroken,
    MachineUnavailable,
    ServerUnavailable,
)
from job_orchestrator.sdk.models import (
    Change,
    ClientList,
    Job,
    JobDetail,
    ServiceList,
    decode,
)

EVENT_SILENCE_S = 45.0
"""The server comments on its silence every 15 s."""

FOLLOW_SILENCE_S = 60.0
"""A script may be silent for hours; then the same place is asked for anew, which costs little."""

REST_S = 0.5
"""Pause where the server ended a stream in order but there is more to come (it is stopping)."""


async def changes(
    connection: Connection,
    path: str,
    params: Mapping[str, str | int],
    on_open: Callable[[], None] | None = None,
) -> AsyncGenerator[Change]:
    """Yield what an event stream tells, across broken connections, without a gap.

    ``on_open`` is called whenever the stream has been opened.

    Ends where the server has told the end of the one job that it is about. Raises ``ApiError``.
    """
    patience = connection.patience()
    last_id = ""
    while True:
        headers = {"Accept": "text/event-stream"}
        if last_id:
            headers[LAST_EVENT_ID] = last_id
        try:
            async with connection.open(
                "GET", path, params=params, headers=headers, silence_s=EVENT_SILENCE_S
            ) as response:
                if on_open is not None:
                    on_open()
                async for event in read_events(response.content.iter_any()):
                    patience.renew()
                    last_id = event.id or last_id
                    change = _change(event, connection.url)
                    if change is not None:
                        yield change
        except ServerUnavailable as error:
            await patience.pause(error)
        except StreamBroken as error:
            await patience.pause(
                ConnectionBroken(f"{connection.url} sent a broken stream: {error}")
            )
        else:
            await asyncio.sleep(REST_S)


def _change(event: Event, url: str) -> Change | None:
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
    """Yield the bytes of ``stdout`` or ``stderr`` from ``offset`` on, each once.

    With ``follow`` until the job has ended, else what there is now. A broken connection is
    resumed; a job that is run again (its client was lost) is told from its new beginning, and
    ``on_rerun`` its attempt before. Raises ``ApiError``.
    """
    patience = connection.patience()
    job = await job_detail(connection, job_id)
    received = False
    while True:
        params: dict[str, str | int] = {"stream": stream, "offset": offset, "follow": int(follow)}
        silence_s = FOLLOW_SILENCE_S if follow else SILENCE_S
        whole = False
        try:
            async with connection.open(
                "GET", f"/jobs/{job_id}/logs", params=params, silence_s=silence_s
            ) as response:
                async for block in response.content.iter_any():
                    patience.renew()
                    offset += len(block)
                    received = True
                    yield block
            whole = True
        except (ServerUnavailable, MachineUnavailable) as error:
            await patience.pause(error)
        if whole and (job.ended or not follow):
            return
        if whole:
            await asyncio.sleep(REST_S)
        earlier, job = job, await job_detail(connection, job_id)
        if received and job.attempt != earlier.attempt:
            offset, received = 0, False
            if on_rerun is not None:
                on_rerun(job.attempt)


async def job_detail(connection: Connection, job_id: int) -> JobDetail:
    """A job as it is now, with its history. Raises ``ApiError``."""
    body = await connection.call("GET", f"/jobs/{job_id}", read_all)
    return decode(body, JobDetail, connection.url)
