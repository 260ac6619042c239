"""What a job's script says: live from its client while it runs, then from the kept output."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from job_orchestrator.common.protocol.paths import RESERVED
from job_orchestrator.common.runtime.limiter import KeyedLimiter
from job_orchestrator.common.runtime.threads import in_thread
from job_orchestrator.common.status import DISPATCHED_JOB, FINAL_JOB, JobStatus
from job_orchestrator.common.web.log_query import LogQuery
from job_orchestrator.server.clients.registry import ClientPool
from job_orchestrator.server.errors import (
    ClientError,
    ClientUnreachable,
    OutputNotFound,
    TooManyReaders,
)
from job_orchestrator.server.files.folder import JobFiles
from job_orchestrator.server.files.zip_reader import Content, read_directory, read_entries
from job_orchestrator.server.jobs.changes import ChangeFeed, Changes
from job_orchestrator.server.model import Job
from job_orchestrator.server.store.sqlite.jobs import JobStore

logger = logging.getLogger(__name__)

RETRY_S = 2.0
MAX_WAIT_S = 7 * 86400.0
BLOCK_BYTES = 1 << 18
MAX_READERS = 32
"""Of one job at once: who follows a job ever so often keeps nobody from the jobs of its client."""


@dataclass(frozen=True)
class JobLogs:
    """Reads them."""

    store: JobStore
    files: JobFiles
    feed: ChangeFeed
    pool: ClientPool
    _bounds: set[asyncio.Timeout] = field(default_factory=set)
    _readers: KeyedLimiter[int] = field(default_factory=KeyedLimiter)

    @contextmanager
    def until_stopped(self, bound: asyncio.Timeout) -> Iterator[None]:
        """Let ``bound`` run out when the server stops."""
        self._bounds.add(bound)
        try:
            yield
        finally:
            self._bounds.discard(bound)

    def close(self) -> None:
        """End all that is being read: the server stops."""
        for bound in self._bounds:
            bound.reschedule(0.0)

    async def read(self, job_id: int, asked: LogQuery) -> AsyncGenerator[bytes, None]:
        """The bytes that were asked for; the first block is empty, and shows that it begins.

        Following goes on until the job has ended, or is run again. Raises ``JobNotFound``,
        ``OutputNotFound`` (its files were removed), ``TooManyReaders``, and before the first block
        ``ClientError``.
        """

        def refusal() -> TooManyReaders:
            return TooManyReaders(
                f"The output of job {job_id} is being read {MAX_READERS} times already;"
                " try again when somebody has stopped"
            )

        with (
            self._readers.slot(MAX_READERS, job_id, refusal),
            self.feed.following(job_id) as changes,
        ):
            job = await self.store.get(job_id)
            if job.status is JobStatus.CLEANED:
                raise OutputNotFound(f"Job {job.id} is Cleaned: its files were removed")
            if asked.follow:
                source = self._follow(job, asked, changes)
            elif job.status in DISPATCHED_JOB:
                source = self._live(job, asked.stream, asked.offset, follow=False)
            else:
                source = self._kept(job, asked.stream, asked.offset)
            async with aclosing(source):
                async for block in source:
                    yield block

    async def _follow(
        self, job: Job, asked: LogQuery, changes: Changes
    ) -> AsyncGenerator[bytes, None]:
        offset = asked.offset
        while job.status in (JobStatus.QUEUED, JobStatus.PROCESSING):
            yield b""
            changed = await changes.wait(MAX_WAIT_S)
            if changed is None:
                return
            job = changed
        attempt, begun = job.attempt, False
        while job.status in DISPATCHED_JOB and job.attempt == attempt:
            try:
                async with aclosing(self._live(job, asked.stream, offset, follow=True)) as live:
                    async for block in live:
                        begun = True
                        offset += len(block)
                        yield block
            except ClientError as error:
                # One that says nothing for long, or that can't be reached just now, is asked again.
                if not begun:
                    raise
                logger.debug("%s", error)
            changed = await changes.wait(RETRY_S)
            job = changed or await self.store.get(job.id)
        if job.attempt == attempt:
            async for block in self._kept(job, asked.stream, offset):
                yield block

    async def _live(
        self, job: Job, stream: str, offset: int, *, follow: bool
    ) -> AsyncGenerator[bytes, None]:
        client = self.pool.get(job.client)
        if client is None or job.dest_id is None:
            raise ClientUnreachable(f"{job.client} is no longer one of the configured clients")
        async with client.api.open_logs(job.dest_id, stream, offset, follow=follow) as response:
            yield b""
            async for block in response.content.iter_any():
                yield block

    async def _kept(self, job: Job, stream: str, offset: int) -> AsyncGenerator[bytes, None]:
        """From the output that was kept; what is not fetched yet, of a killed job, from its client.

        Nothing if there is none, as of a job that never ran.
        """
        yield b""
        if not job.has_output:
            if job.status in FINAL_JOB and job.dest_id is not None:
                with contextlib.suppress(ClientError):
                    async for block in self._live(job, stream, offset, follow=False):
                        yield block
            return
        file = await in_thread(_open_kept, self.files.result(job), stream, offset)
        if file is None:
            return
        try:
            while block := await in_thread(file.read, BLOCK_BYTES):
                yield block
        finally:
            await in_thread(file.close)


def _open_kept(path: Path, stream: str, offset: int) -> Content | None:
    """The script's output in a ZIP, from ``offset`` on; None if there is none.

    Raises ``OutputNotFound`` if the ZIP is gone, ``NoZip`` if it can't be read.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError as error:
        raise OutputNotFound("The output is gone from the server's disk") from error
    wanted = f"{RESERVED}/{stream}.txt"
    try:
        for entry in read_entries(file, read_directory(file)):
            if entry.path == wanted:
                content = Content(file, entry)
                content.skip(offset)
                return content
    except BaseException:
        file.close()
        raise
    file.close()  # an older client has none
    return None
