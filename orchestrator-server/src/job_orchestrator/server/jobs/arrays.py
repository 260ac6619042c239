"""Arrays of jobs as a whole: their state, the results of all tasks, their termination."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, suppress
from dataclasses import dataclass

from job_orchestrator.common.errors import DomainError
from job_orchestrator.common.messages import jobs as messages
from job_orchestrator.common.runtime.threads import in_thread
from job_orchestrator.common.status import JobStatus
from job_orchestrator.server.errors import JobAlreadyEnded
from job_orchestrator.server.files.zip_joiner import ZipJoiner
from job_orchestrator.server.jobs.queries import JobQueries
from job_orchestrator.server.jobs.reasons import reason_for
from job_orchestrator.server.jobs.stored_files import StoredFiles
from job_orchestrator.server.jobs.terminate import JobTermination
from job_orchestrator.server.jobs.views import array_view
from job_orchestrator.server.model import MAX_JOB_ID, Job, JobFilter
from job_orchestrator.server.store.arrays import JobArray
from job_orchestrator.server.store.base import JobStore

BATCH = 200
"""Tasks that are read, or ended, together."""

AT_ONCE = 16
"""Tasks that are terminated at their clients at the same time."""

BLOCK_BYTES = 1 << 20

MISSING = "MISSING.txt"
"""File that lists the tasks without results, at the top of the ZIP."""


@dataclass(frozen=True)
class Arrays:
    """Operations on all tasks of an array."""

    store: JobStore
    files: StoredFiles
    queries: JobQueries
    termination: JobTermination

    async def state(self, array_id: int, wait_s: float = 0.0) -> messages.JobArray:
        """Return an array when all of its tasks have ended, or as it is after ``wait_s``.

        Raises ``ArrayNotFound``.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_s
        while True:
            array = await self.store.arrays.get(array_id)
            left_s = deadline - loop.time()
            if not array.unended or left_s <= 0:
                break
            # Tasks start in order, so the last one probably ends last.
            task = await self._last_unended(array)
            if task is None:
                break
            if not (await self.queries.wait_for_end(task.id, left_s)).status.has_ended:
                break
        counts = await self.store.arrays.counts(array_id)
        return array_view(array, await self.store.get(array_id), counts)

    async def terminate(self, array_id: int) -> messages.JobArray:
        """Terminate all tasks that have not ended. Raises ``ArrayNotFound``.

        As with single jobs, a task whose client does not answer is terminated later.
        """
        array = await self.store.arrays.get(array_id)
        await self.store.arrays.request_kill(array_id)
        while await self.store.arrays.kill_queued(array_id, BATCH):
            pass
        slots, after = asyncio.Semaphore(AT_ONCE), 0
        while tasks := await self.store.arrays.tasks(array, after, BATCH, unended=True):
            after = tasks[-1].id
            async with asyncio.TaskGroup() as group:
                for task in tasks:
                    group.create_task(self._terminate(task, slots))
        return await self.state(array_id)

    async def archive(self, array_id: int) -> AsyncGenerator[bytes, None]:
        """Return the blocks of a ZIP with the results of each Completed task in its own folder.

        The others are listed in ``MISSING``. Raises ``ArrayNotFound``.
        """
        return self._blocks(await self.store.arrays.get(array_id))

    async def _terminate(self, task: Job, slots: asyncio.Semaphore) -> None:
        async with slots:
            with suppress(JobAlreadyEnded):
                await self.termination.terminate(task.id)

    async def _last_unended(self, array: JobArray) -> Job | None:
        wanted = JobFilter(array_id=array.id, statuses=UNENDED)
        return next(iter(await self.store.lists.page(wanted, MAX_JOB_ID, 1)), None)

    async def _blocks(self, array: JobArray) -> AsyncGenerator[bytes, None]:
        joiner = ZipJoiner()
        missing: list[str] = []
        try:
            after = 0
            while tasks := await self.store.arrays.tasks(array, after, BATCH):
                after = tasks[-1].id
                for task in tasks:
                    problem = _without_results(task)
                    if not problem:
                        try:
                            async with aclosing(self._results(joiner, task)) as blocks:
                                async for block in blocks:
                                    yield block
                        except FileNotFoundError:
                            problem = "Its results are missing from the server's storage"
                        except DomainError as error:
                            problem = f"Its results can't be read: {error}"
                    if problem:
                        missing.append(f"{task.array_index} (job {task.id}): {problem}\n")
            if missing:
                yield joiner.add_text(MISSING, "".join(missing))
            for block in joiner.end():
                yield block
        finally:
            await in_thread(joiner.close)

    async def _results(self, joiner: ZipJoiner, task: Job) -> AsyncGenerator[bytes, None]:
        archive = await self.files.open_result(task)
        try:
            parts = joiner.add(archive, str(task.array_index))
            while block := await in_thread(_next_block, parts):
                yield block
        finally:
            await in_thread(archive.close)


UNENDED = tuple(status for status in JobStatus if not status.has_ended)


def _without_results(task: Job) -> str:
    """Say why a task has no results in the ZIP; empty if it has."""
    if task.status is JobStatus.COMPLETED:
        return ""
    reason = reason_for(task.message, details=False)
    return f"{task.status}: {reason}" if reason else str(task.status)


def _next_block(parts: Iterator[bytes]) -> bytes:
    """Return the next parts, together about ``BLOCK_BYTES``; nothing at the end."""
    gathered: list[bytes] = []
    size = 0
    for part in parts:
        gathered.append(part)
        size += len(part)
        if size >= BLOCK_BYTES:
            break
    return b"".join(gathered)
