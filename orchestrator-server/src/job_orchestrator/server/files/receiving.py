"""Results on their way from a client to a job's folder."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from job_orchestrator.common.runtime.fault_injection import Point, reach
from job_orchestrator.common.runtime.threads import in_thread
from job_orchestrator.common.storage.durable import WriteBehind, full_disk_as_domain_error
from job_orchestrator.server.clients.http_connection import BLOCK_BYTES
from job_orchestrator.server.errors import ResultsTooLarge
from job_orchestrator.server.files.folder import JobFiles
from job_orchestrator.server.model import Job


@dataclass(frozen=True)
class Arrival:
    """The place for the results of ``job``'s present attempt: at most ``max_bytes``, 0: any size.

    Clients have such a limit too, but they are not believed.
    """

    files: JobFiles
    job: Job
    max_bytes: int = 0

    async def take(self, blocks: AsyncIterator[bytes]) -> int:
        """Make ``blocks`` the job's results, whole and durable, or leave nothing behind.

        Returns how many bytes they are. Results that fit into one block cost one thread hop. Raises
        ``BrokenArchive``, ``StorageFull``, ``ResultsTooLarge`` as soon as they are, and what
        ``blocks`` raises.
        """
        first = await anext(blocks, b"")
        try:
            reach(Point.SERVER_RESULTS_ARRIVED)
            self._check(len(first))
            if len(first) < BLOCK_BYTES:
                await in_thread(self.files.keep_small_result, self.job, first)
                size = len(first)
            else:
                size = await self._write(first, blocks)
                await in_thread(self.files.keep_result, self.job)
            reach(Point.SERVER_RESULTS_KEPT)
        except BaseException:
            await in_thread(self.files.drop_arriving, self.job)
            raise
        return size

    async def _write(self, first: bytes, blocks: AsyncIterator[bytes]) -> int:
        path = self.files.arriving(self.job)
        with full_disk_as_domain_error():
            file = await in_thread(path.open, "wb")
            behind = WriteBehind(file.fileno())

            def write(block: bytes) -> int:
                file.write(block)
                behind.wrote(len(block))
                return len(block)

            try:
                size = await in_thread(write, first)
                async for block in blocks:
                    self._check(size + len(block))
                    size += await in_thread(write, block)
            finally:
                await in_thread(file.close)
        return size

    def _check(self, size: int) -> None:
        if self.max_bytes and size > self.max_bytes:
            raise ResultsTooLarge(self.max_bytes)
