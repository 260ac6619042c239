"""The calls to a jo-server, for asyncio programs."""

import asyncio
import os
import secrets
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import aiohttp
import msgspec

from job_orchestrator.common.protocol.headers import IDEMPOTENCY_KEY
from job_orchestrator.common.runtime.threads import in_thread
from job_orchestrator.common.status import FINAL_JOB, JobStatus
from job_orchestrator.sdk.connection import Connection, Trouble, read_all
from job_orchestrator.sdk.downloads import ZIP, Download
from job_orchestrator.sdk.errors import (
    AlreadyEnded,
    NotEnded,
    OutputNotFound,
    ServerUnavailable,
    ServerUnreachable,
)
from job_orchestrator.sdk.models import (
    Change,
    ClientList,
    ComputeClient,
    Health,
    Identity,
    Job,
    JobDetail,
    JobPage,
    Minute,
    ResultFiles,
    Service,
    ServiceList,
    Stats,
    Submitted,
    decode,
)
from job_orchestrator.sdk.streams import REST_S, changes, job_detail, log_blocks
from job_orchestrator.sdk.uploads import Files, Progress, Upload, collect

STORING_TIMEOUT_S = 300.0
"""An accepted upload is flushed to the disk before it is answered."""

CANCEL_TIMEOUT_S = 90.0
"""The answer comes when nothing of the job runs any more."""

MAX_WAIT_S = 60.0
PAGE = 200
PATIENCE_S = 60.0

LogStream = Literal["stdout", "stderr"]


class AsyncClient:
    """A jo-server at ``url``, such as ``http://localhost:5000``.

    Use it as a context manager, or ``close`` it. It keeps its connections: make one for a program,
    not one for a call. All calls raise ``ApiError``, of which each subclass is one kind of failure.

    ``token``: what the server wants as ``Authorization: Bearer``. ``patience_s``: how long a server
    that is away (restarting, say) is tried again before a call fails with ``ServerUnavailable``;
    ``on_trouble`` is told of each such failure and of the seconds until the next try.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        patience_s: float = PATIENCE_S,
        on_trouble: Trouble | None = None,
    ) -> None:
        self._connection = Connection(url, token, patience_s, on_trouble)

    async def __aenter__(self) -> Self:
        """Open nothing yet: the first call does."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End all connections."""
        await self.close()

    async def close(self) -> None:
        """End all connections."""
        await self._connection.close()

    @property
    def url(self) -> str:
        """The URL of the server, without a slash at its end."""
        return self._connection.url

    @property
    def answered(self) -> bool:
        """Whether the server has ever answered this client."""
        return self._connection.answered

    async def submit(
        self,
        service: str,
        files: Files,
        *,
        user_id: int,
        name: str | None = None,
        tag: str | None = None,
        priority: int | None = None,
        time_limit: float | str | None = None,
        callback_url: str | None = None,
        idempotency_key: str | None = None,
        progress: Progress | None = None,
    ) -> Submitted:
        """Submit a job: ``files``, one of which is ``run.sh``, for ``user_id``.

        On return the job is safe on the server's disk. A submit whose answer is lost is repeated,
        and is still one job: the server knows it by ``idempotency_key``. The default is a new key
        for each call; give your own (a form's id, say) where a user may send the same thing twice.

        ``name`` and ``tag`` are for people and for filters; ``priority`` (-100 to 100, higher
        first) is among the jobs of this user; ``time_limit`` is in seconds, or a text such as
        ``"5m"``; ``callback_url`` is called when the job has ended. Raises ``UnusableFiles`` before
        anything is sent, ``Refused``, ``QuotaExceeded``.
        """
        fields = {"user_id": user_id, "service": service, "name": name, "tag": tag}
        fields |= {"priority": priority, "time_limit": time_limit, "callback_url": callback_url}
        given = {field: str(value) for field, value in fields.items() if value is not None}
        upload = Upload(await in_thread(collect, files), given, progress)
        return await self._connection.call(
            "POST",
            "/upload",
            self._read_submitted,
            headers={IDEMPOTENCY_KEY: idempotency_key or secrets.token_urlsafe(24)},
            body=upload,
            silence_s=STORING_TIMEOUT_S,
        )

    async def _read_submitted(self, response: aiohttp.ClientResponse) -> Submitted:
        said = decode(await read_all(response), Submitted, self.url)
        return Submitted(said.id, said.status, said.message, repeated=response.status == 200)

    async def job(self, job_id: int) -> JobDetail:
        """A job as it is now, with its history. Raises ``JobNotFound``."""
        return await job_detail(self._connection, job_id)

    async def jobs(
        self,
        *,
        user_id: int | None = None,
        service: str | None = None,
        status: JobStatus | Iterable[JobStatus] | None = None,
        tag: str | None = None,
    ) -> AsyncGenerator[Job]:
        """Yield the jobs that match all that is given, newest first, page by page."""
        statuses = [status] if isinstance(status, str) else list(status or ())
        wanted = {"user_id": user_id, "service": service, "tag": tag}
        params: dict[str, str] = {k: str(v) for k, v in wanted.items() if v is not None}
        if statuses:
            params["status"] = ",".join(statuses)
        params["limit"] = str(PAGE)
        while True:
            body = await self._connection.call("GET", "/jobs", read_all, params=params)
            page = decode(body, JobPage, self.url)
            for job in page.jobs:
                yield job
            if page.next is None:
                return
            params["after"] = str(page.next)

    async def wait(self, job_id: int, *, timeout_s: float | None = None) -> JobDetail:
        """Wait for the end of a job, however it ends, and return it.

        The server answers the moment that the job ends; nothing is polled. It may be restarted
        meanwhile. Raises ``JobNotFound``; ``NotEnded`` after ``timeout_s``.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while not await self._has_ended(job_id):  # noqa: ASYNC110 (the call waits)
                    # The server answers early when it is stopping.
                    await asyncio.sleep(REST_S)
        except TimeoutError as error:
            raise NotEnded(
                f"Job {job_id} has not ended after {timeout_s:g} s; it goes on"
            ) from error
        except OutputNotFound:
            # It is Completed, but its results are gone from the server's disk.
            pass
        return await self.job(job_id)

    async def _has_ended(self, job_id: int) -> bool:
        """Whether the job has ended; if not, the answer took as long as the server may wait."""
        return await self._connection.call(
            "GET",
            f"/download/{job_id}",
            self._read_ended,
            params={"wait": MAX_WAIT_S},
            # The state is wanted, not the results: one byte of them will do.
            headers={"Range": "bytes=0-0"},
            silence_s=2 * MAX_WAIT_S,
        )

    async def _read_ended(self, response: aiohttp.ClientResponse) -> bool:
        if response.content_type == ZIP:
            return True
        status = decode(await read_all(response), Submitted, self.url).status
        return status in FINAL_JOB or status is JobStatus.CLEANED

    async def watch(self, job_id: int) -> AsyncGenerator[Job]:
        """Yield a job as it is now and at each change, its end included, as the server pushes it.

        Raises ``JobNotFound``.
        """
        stream = changes(self._connection, f"/jobs/{job_id}/events", {})
        async with aclosing(stream):
            async for change in stream:
                if isinstance(change, Job):
                    yield change
                    if change.ended:
                        return

    async def events(
        self, *, user_id: int | None = None, on_open: Callable[[], None] | None = None
    ) -> AsyncGenerator[Change]:
        """Yield every change of every job (of a user) from now on, as the server pushes it.

        Without ``user_id`` also the lists of services and of clients, at once and whenever
        something about them changes. It never ends by itself, and misses nothing when the
        connection breaks. ``on_open`` is called when the stream is open: what is asked for from
        then on (a list, say) is followed without a gap.
        """
        params = {} if user_id is None else {"user_id": user_id}
        stream = changes(self._connection, "/events", params, on_open)
        async with aclosing(stream):
            async for change in stream:
                yield change

    async def logs(
        self,
        job_id: int,
        *,
        stream: LogStream = "stdout",
        offset: int = 0,
        follow: bool = False,
        on_rerun: Callable[[int], None] | None = None,
    ) -> AsyncGenerator[bytes]:
        """Yield what the job has printed, from the byte ``offset`` on, as it comes.

        With ``follow`` until the job has ended (one that is queued is waited for), else what there
        is now. A broken connection is resumed where it broke. A job that is run again meanwhile
        (its client was lost) begins anew: ``on_rerun`` is called with the number of the attempt
        whose output comes next. Raises ``JobNotFound``.
        """
        blocks = log_blocks(self._connection, job_id, stream, offset, follow, on_rerun)
        async with aclosing(blocks):
            async for block in blocks:
                yield block

    async def download(
        self,
        job_id: int,
        target: str | os.PathLike[str],
        *,
        partial: bool = False,
        progress: Progress | None = None,
    ) -> Path:
        """Fetch the results of a job, a ZIP, into the file ``target``; returns its path.

        The file has its name only once it is whole; a broken connection is resumed where it broke.
        With ``partial`` it is what there is: the work folder of a running job as it is now, or the
        kept output of one that failed. Raises ``NotCompleted`` without it if the job is anything
        but Completed, ``OutputNotFound``, ``JobNotFound``, ``LocalStorageFailed``.
        """
        what = "download_partial" if partial else "download"
        path = Path(target)
        await Download(self._connection, f"/{what}/{job_id}", progress).to(path)
        return path

    async def files(self, job_id: int) -> ResultFiles:
        """List the files in the results of a job. Raises ``OutputNotFound``, ``JobNotFound``."""
        body = await self._connection.call("GET", f"/jobs/{job_id}/files", read_all)
        return decode(body, ResultFiles, self.url)

    async def cancel(self, job_id: int) -> Submitted:
        """End a job. On return nothing of it runs any more.

        Raises ``AlreadyEnded``, ``JobNotFound``; ``MachineUnavailable`` if its client can't be
        reached: then it is ended as soon as it can be, and there is no need to repeat the call.
        """
        patience = self._connection.patience()
        repeated = False
        while True:
            try:
                async with self._connection.open(
                    "POST", f"/terminate/{job_id}", silence_s=CANCEL_TIMEOUT_S
                ) as response:
                    return decode(await read_all(response), Submitted, self.url)
            except ServerUnavailable as error:
                repeated = repeated or not isinstance(error, ServerUnreachable)
                await patience.pause(error)
            except AlreadyEnded as error:
                if repeated and error.status is JobStatus.KILLED:
                    # By the call whose answer was lost.
                    return Submitted(job_id, error.status, str(error))
                raise

    async def services(self) -> list[Service]:
        """The services of the server, with limits, use and health."""
        body = await self._connection.call("GET", "/services", read_all)
        return decode(body, ServiceList, self.url).services

    async def clients(self) -> list[ComputeClient]:
        """The jo-clients of the server, as it sees them."""
        body = await self._connection.call("GET", "/clients", read_all)
        return decode(body, ClientList, self.url).clients

    async def stats(self) -> list[Minute]:
        """What happened in each minute of the last hour, oldest first."""
        body = await self._connection.call("GET", "/stats", read_all)
        return decode(body, Stats, self.url).minutes

    async def whoami(self) -> Identity:
        """Who the server takes the caller for."""
        body = await self._connection.call("GET", "/whoami", read_all)
        return decode(body, Identity, self.url)

    async def health(self) -> Health:
        """The server's own check. Raises ``ServerFailed``, saying what is wrong."""
        return await self._connection.call("GET", "/health", self._read_health)

    async def _read_health(self, response: aiohttp.ClientResponse) -> Health:
        now = datetime.now(UTC)
        said = decode(await read_all(response), Health, self.url)
        try:
            date = parsedate_to_datetime(response.headers.get("Date", ""))
        except ValueError:
            return said
        return msgspec.structs.replace(said, ahead_s=(date - now).total_seconds())
