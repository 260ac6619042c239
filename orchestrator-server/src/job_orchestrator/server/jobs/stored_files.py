"""Inputs and results of jobs, wherever they are stored: the only place that knows both forms.

Files that are small together are stored in the database, in the transaction of the job's row. All
others are in ``JobFiles``. A job may have small inputs and large results, or the reverse.
"""

import hashlib
import io
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import IO

from job_orchestrator.common.protocol.multipart_writer import FormBody
from job_orchestrator.common.runtime.fault_injection import Point, reach
from job_orchestrator.common.runtime.threads import in_thread
from job_orchestrator.server.clients.base import SmallInputs
from job_orchestrator.server.errors import ResultsTooLarge
from job_orchestrator.server.files.base import (
    JobFiles,
    ServedResult,
    SmallResult,
    check_archive,
    check_digest,
)
from job_orchestrator.server.model import Job, StoredOutput
from job_orchestrator.server.store.base import JobStore


@dataclass(frozen=True)
class StoredFiles:
    """Files of all jobs. Those with at most ``inline_bytes`` together are in the database.

    ``inline_bytes`` concerns files that are stored from now on: all others are found in any case.
    """

    store: JobStore
    files: JobFiles
    inline_bytes: int

    async def inputs(self, job: Job) -> FormBody | SmallInputs:
        """Return the inputs in the form in which they are sent to a client, in a stable order.

        Raises ``FileNotFoundError`` if they are gone.
        """
        block = await self.store.inputs(job)
        if block is None:
            return await in_thread(self.files.inputs, await self._folder(job), job.fields())
        return SmallInputs(block, job.fields())

    def result_receiver(self, job: Job, max_bytes: int = 0) -> "StoredResultReceiver":
        """Return the receiver of the results of the job's current attempt.

        ``max_bytes`` limits their size (0: no limit).
        """
        return StoredResultReceiver(self, job, max_bytes)

    async def served_result(self, job: Job) -> ServedResult:
        """Return the results of a job in the form in which they are served.

        Raises ``FileNotFoundError`` if there are none, ``OSError``.
        """
        content = await self.store.result(job)
        if content is None:
            return await in_thread(self.files.served_result, job)
        return SmallResult(content, int((job.ended_at or 0.0) * 10**9))

    async def open_result(self, job: Job) -> IO[bytes]:
        """Open the results of a job for reading at any position.

        Raises ``FileNotFoundError`` if there are none, ``OSError``.
        """
        content = await self.store.result(job)
        if content is None:
            return await in_thread(self.files.open_result, job)
        return io.BytesIO(content)

    async def are_lost(self, job: Job) -> bool:
        """Return whether the job's files are gone although the storage itself is available."""
        if await self.store.inputs(job) is not None:
            return False
        return await in_thread(self.files.are_lost, await self._folder(job))

    async def _folder(self, job: Job) -> str:
        """Return the UUID under which the inputs of a job are stored: a task has its array's."""
        if job.array_id is None:
            return job.uuid
        return (await self.store.arrays.get(job.array_id)).uuid


class StoredResultReceiver:
    """Receiver of the results of a job's attempt. Implements ``ResultReceiver``.

    Small results are returned as ``StoredOutput.content``: the caller stores them with the state of
    the job.
    """

    def __init__(self, stored: StoredFiles, job: Job, max_bytes: int) -> None:
        self._stored = stored
        self._job = job
        self._max_bytes = max_bytes

    async def receive(
        self, blocks: AsyncIterator[bytes], sha256: bytes | None = None
    ) -> StoredOutput:
        """Check small results and return them; store others. See ``ResultReceiver``."""
        begun: list[bytes] = []
        size = 0
        async for block in blocks:
            begun.append(block)
            size += len(block)
            if self._max_bytes and size > self._max_bytes:
                raise ResultsTooLarge(self._max_bytes)
            if size > self._stored.inline_bytes:
                return await self._store(_chained(begun, blocks), sha256)
        reach(Point.SERVER_RESULTS_ARRIVED)
        content = b"".join(begun)
        received = hashlib.sha256(content).digest()
        check_digest(self._job, received, sha256)
        check_archive(self._job, io.BytesIO(content))
        reach(Point.SERVER_RESULTS_KEPT)
        return StoredOutput(size, received, content)

    async def _store(self, blocks: AsyncIterator[bytes], sha256: bytes | None) -> StoredOutput:
        """Store results in ``JobFiles``, where a task, or a job with small inputs, has no place."""
        job = self._job
        first_files = job.array_id is not None or await self._stored.store.inputs(job) is not None
        receiver = self._stored.files.result_receiver(job, self._max_bytes, first_files=first_files)
        return await receiver.receive(blocks, sha256)


async def _chained(begun: Sequence[bytes], rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield b"".join(begun)
    async for block in rest:
        yield block
