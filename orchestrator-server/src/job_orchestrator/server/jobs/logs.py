"""Standard output and error of jobs: live from the client, afterwards from the stored results."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from typing import IO

from job_orchestrator.common.protocol.paths import RESERVED
from job_orchestrator.common.runtime.limiter import KeyedLimiter
from job_orchestrator.common.runtime.threads import in_thread
from job_orchestrator.common.status import DISPATCHED_JOB, FINAL_JOB, JobStatus
from job_orchestrator.server.clients.registry import ClientRegistry
from job_orchestrator.server.errors import (
    ClientError,
    ClientUnreachable,
    OutputNotFound,
    TooManyReaders,
)
from job_orchestrator.server.files.zip_reader import EntryReader, find_entry
from job_orchestrator.server.jobs.changes import ChangeFeed, Changes
from job_orchestrator.server.jobs.stored_files import StoredFiles
from job_orchestrator.server.model import Job
from job_orchestrator.server.store.base import JobStore

logger = logging.getLogger(__name__)

RECONNECT_S = 2.0
MAX_QUEUE_WAIT_S = 7 * 86400.0
BLOCK_BYTES = 1 << 18
MAX_READERS = 32
"""Concurrent readers of one job, so that one job cannot occupy all connections to its client."""


@dataclass(frozen=True)
class JobLogs:
    """Reads the output of jobs' scripts.

    ``reconnect_s`` is the delay before a live stream that broke off is opened again.
    """

    store: JobStore
    files: StoredFiles
    feed: ChangeFeed
    clients: ClientRegistry
    reconnect_s: float = RECONNECT_S
    _timeouts: set[asyncio.Timeout] = field(default_factory=set)
    _readers: KeyedLimiter[int] = field(default_factory=KeyedLimiter)

    @contextmanager
    def expiring_at_stop(self, timeout: asyncio.Timeout) -> Iterator[None]:
        """Let ``timeout`` expire when the server stops within the block."""
        self._timeouts.add(timeout)
        try:
            yield
        finally:
            self._timeouts.discard(timeout)

    def close(self) -> None:
        """End all reads, because the server stops."""
        for timeout in self._timeouts:
            timeout.reschedule(0.0)

    async def read(
        self,
        job_id: int,
        stream: str,
        *,
        offset: int = 0,
        follow: bool = False,
        on_attempt: Callable[[int], None] = lambda attempt: None,
    ) -> AsyncGenerator[bytes, None]:
        """Yield the bytes of ``stream`` (``stdout`` or ``stderr``) from byte ``offset`` on.

        The first block is empty, and shows that the output can be read. ``on_attempt`` is called
        before it with the number of the attempt, of which all bytes are: of a queued job, that is
        the next one. With ``follow`` the output goes on until that attempt has ended. Raises
        ``JobNotFound``, ``OutputNotFound`` if the job's files were removed, ``TooManyReaders``,
        and before the first block ``ClientError``.
        """

        def refusal() -> TooManyReaders:
            return TooManyReaders(
                f"The output of job {job_id} is being read {MAX_READERS} times already;"
                " try again when another reader has finished"
            )

        with (
            self._readers.slot(MAX_READERS, job_id, refusal),
            self.feed.following(job_id) as changes,
        ):
            job = await self.store.get(job_id)
            if job.status is JobStatus.CLEANED:
                raise OutputNotFound(f"Job {job.id} is Cleaned: its files were removed")
            on_attempt(_attempt_with_output(job))
            if follow:
                source = self._follow(job, stream, offset, changes)
            elif job.status in DISPATCHED_JOB:
                source = self._live(job, stream, offset, follow=False)
            else:
                source = self._stored(job, stream, offset)
            async with aclosing(source):
                async for block in source:
                    yield block

    async def _follow(
        self, job: Job, stream: str, offset: int, changes: Changes
    ) -> AsyncGenerator[bytes, None]:
        attempt, has_begun = _attempt_with_output(job), False
        while job.status in (JobStatus.QUEUED, JobStatus.PROCESSING):
            yield b""
            changed = await changes.wait(MAX_QUEUE_WAIT_S)
            if changed is None or _attempt_with_output(changed) != attempt:
                return
            job = changed
        while job.status in DISPATCHED_JOB and job.attempt == attempt:
            try:
                async with aclosing(self._live(job, stream, offset, follow=True)) as live:
                    async for block in live:
                        has_begun = True
                        offset += len(block)
                        yield block
            except ClientError as error:
                # The client is silent for long or temporarily unreachable: read again from the
                # current offset. A failure before the first block is reported to the reader.
                if not has_begun:
                    raise
                logger.debug("%s", error)
            changed = await changes.wait(self.reconnect_s)
            job = changed or await self.store.get(job.id)
        if job.attempt == attempt:
            async for block in self._stored(job, stream, offset):
                yield block

    async def _live(
        self, job: Job, stream: str, offset: int, *, follow: bool
    ) -> AsyncGenerator[bytes, None]:
        client = self.clients.of(job)
        if client is None or job.dest_id is None:
            raise ClientUnreachable(f"{job.client} is no longer one of the configured clients")
        async with client.transport.open_logs(job.dest_id, stream, offset, follow=follow) as output:
            yield b""
            async for block in output.blocks:
                yield block

    async def _stored(self, job: Job, stream: str, offset: int) -> AsyncGenerator[bytes, None]:
        """Yield from the stored results, and nothing if the job never ran.

        The output of a killed job that has not been fetched yet is read from the client.
        """
        yield b""
        if not job.has_output:
            if job.status in FINAL_JOB and job.dest_id is not None:
                with contextlib.suppress(ClientError):
                    async for block in self._live(job, stream, offset, follow=False):
                        yield block
            return
        try:
            archive = await self.files.open_result(job)
        except FileNotFoundError as error:
            raise OutputNotFound(
                f"The results of job {job.id} are missing from the server's storage"
            ) from error
        output = await in_thread(_open_entry, archive, f"{RESERVED}/{stream}.txt", offset)
        if output is None:
            return
        try:
            while block := await in_thread(output.read, BLOCK_BYTES):
                yield block
        finally:
            await in_thread(output.close)


def _attempt_with_output(job: Job) -> int:
    """Return the number of the attempt whose output is served: the next one of a queued job."""
    return job.attempt + (job.status is JobStatus.QUEUED)


def _open_entry(archive: IO[bytes], path: str, offset: int) -> EntryReader | None:
    """Open the file ``path`` of a ZIP at ``offset``. Without it, close the ZIP and return None.

    Raises ``NotAZip`` if the ZIP can't be read.
    """
    try:
        entry = find_entry(archive, path)
        if entry is not None:
            output = EntryReader(archive, entry)
            output.skip(offset)
            return output
    except BaseException:
        archive.close()
        raise
    archive.close()  # Clients of older versions store no output.
    return None
