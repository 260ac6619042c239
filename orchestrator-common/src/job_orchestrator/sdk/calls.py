"""Calls to jo-server that take several requests, or more of an answer than its JSON."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus

import aiohttp
import msgspec

from job_orchestrator.common.messages.jobs import Job, JobAnswer, JobDetail, JobPage
from job_orchestrator.common.messages.service import PauseList
from job_orchestrator.common.protocol.headers import IDEMPOTENCY_KEY
from job_orchestrator.common.status import JobStatus
from job_orchestrator.sdk.connection import Connection, read_all
from job_orchestrator.sdk.downloads import ZIP
from job_orchestrator.sdk.errors import (
    AlreadyEnded,
    NotEnded,
    OutputNotFound,
    ServerUnavailable,
    ServerUnreachable,
)
from job_orchestrator.sdk.models import Health, Submitted, decode
from job_orchestrator.sdk.streams import REOPEN_DELAY_S, job_detail
from job_orchestrator.sdk.uploads import Upload

STORING_TIMEOUT_S = 300.0
"""The server flushes an upload to the disk before it answers."""

CANCEL_TIMEOUT_S = 90.0
"""The server answers when all processes of the job have ended."""

MAX_WAIT_S = 60.0
PAGE_SIZE = 200


async def submit(connection: Connection, upload: Upload, idempotency_key: str) -> Submitted:
    """Send an upload; retries create no second job. Raises ``ApiError``."""

    async def read(response: aiohttp.ClientResponse) -> Submitted:
        answer = decode(await read_all(response), Submitted, connection.url)
        return msgspec.structs.replace(answer, repeated=response.status == HTTPStatus.OK)

    return await connection.call(
        "POST",
        "/upload",
        read,
        headers={IDEMPOTENCY_KEY: idempotency_key},
        body=upload,
        read_timeout_s=STORING_TIMEOUT_S,
    )


async def jobs(
    connection: Connection,
    user_id: int | None,
    service: str | None,
    statuses: Iterable[JobStatus],
    tag: str | None,
    array: int | None = None,
) -> AsyncGenerator[Job]:
    """Yield the jobs that match all given filters, newest first. Raises ``ApiError``."""
    filters = {"user_id": user_id, "service": service, "tag": tag, "array": array}
    params = {name: str(value) for name, value in filters.items() if value is not None}
    if joined := ",".join(statuses):
        params["status"] = joined
    params["limit"] = str(PAGE_SIZE)
    while True:
        body = await connection.call("GET", "/jobs", read_all, params=params)
        page = decode(body, JobPage, connection.url)
        for job in page.jobs:
            yield job
        if page.next is None:
            return
        params["after"] = page.next


async def wait(connection: Connection, job_id: int, timeout_s: float | None) -> JobDetail:
    """Return a job when it has ended. Raises ``NotEnded`` after ``timeout_s``, and ``ApiError``."""
    try:
        async with asyncio.timeout(timeout_s):
            while not await _has_ended(connection, job_id):  # noqa: ASYNC110 (the call waits)
                # A server that is stopping answers early.
                await asyncio.sleep(REOPEN_DELAY_S)
    except TimeoutError as error:
        raise NotEnded(f"Job {job_id} has not ended after {timeout_s:g} s; it continues") from error
    except OutputNotFound:
        # The job is Completed, and its results are missing on the server's disk.
        pass
    return await job_detail(connection, job_id)


async def _has_ended(connection: Connection, job_id: int) -> bool:
    """Ask whether a job has ended. The server delays a negative answer for as long as it may."""

    async def read(response: aiohttp.ClientResponse) -> bool:
        if response.content_type == ZIP:
            return True
        return decode(await read_all(response), JobAnswer, connection.url).status.has_ended

    return await connection.call(
        "GET",
        f"/download/{job_id}",
        read,
        params={"wait": MAX_WAIT_S},
        # Only the state is needed: of results, one byte is requested.
        headers={"Range": "bytes=0-0"},
        read_timeout_s=2 * MAX_WAIT_S,
    )


async def cancel(connection: Connection, job_id: int) -> Submitted:
    """Cancel a job and wait until its processes have ended. Raises ``ApiError``."""
    retries = connection.retries()
    may_be_cancelled = False
    while True:
        try:
            async with connection.open(
                "POST", f"/terminate/{job_id}", read_timeout_s=CANCEL_TIMEOUT_S
            ) as response:
                return decode(await read_all(response), Submitted, connection.url)
        except ServerUnavailable as error:
            may_be_cancelled = may_be_cancelled or not isinstance(error, ServerUnreachable)
            await retries.wait_after(error)
        except AlreadyEnded as error:
            if may_be_cancelled and error.status is JobStatus.KILLED:
                # By an earlier try, whose answer was lost.
                return Submitted(job_id, error.status, str(error))
            raise


class JsonBody:
    """Body of a request with JSON."""

    def __init__(self, content: object) -> None:
        self._content = msgspec.json.encode(content)
        self.headers = {"Content-Type": "application/json"}
        self.failure: Exception | None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the JSON."""
        yield self._content


async def change(connection: Connection, job_id: int, **fields: object) -> JobDetail:
    """Change a queued job. Raises ``ApiError``."""
    answer = await connection.call("PATCH", f"/jobs/{job_id}", read_all, body=JsonBody(fields))
    return decode(answer, JobDetail, connection.url)


async def set_pause(
    connection: Connection, route: str, service: str | None, user_id: int | None
) -> PauseList:
    """Pause or resume a service or a user. Raises ``ApiError``."""
    body = JsonBody({"service": service, "user_id": user_id})
    answer = await connection.call("POST", route, read_all, body=body)
    return decode(answer, PauseList, connection.url)


async def health(connection: Connection) -> Health:
    """Fetch the server's health and compare the clocks. Raises ``ApiError``."""

    async def read(response: aiohttp.ClientResponse) -> Health:
        now = datetime.now(UTC)
        found = decode(await read_all(response), Health, connection.url)
        try:
            date = parsedate_to_datetime(response.headers.get("Date", ""))
        except ValueError:
            return found
        return msgspec.structs.replace(found, ahead_s=(date - now).total_seconds())

    return await connection.call("GET", "/health", read)
