"""Retention: removes the files of jobs that ended long ago, and orphaned files."""

import logging

from job_orchestrator.common.runtime.fault_injection import Point, reach
from job_orchestrator.common.runtime.threads import in_thread
from job_orchestrator.common.status import JobStatus, TransitionRefused
from job_orchestrator.server.files.base import JobFiles
from job_orchestrator.server.store.base import JobStore

logger = logging.getLogger(__name__)

BATCH = 200


class Retention:
    """Removes files that are no longer kept.

    ``max_age_s`` counts from the end of a job, so a job that runs for longer is not affected.
    """

    def __init__(self, store: JobStore, files: JobFiles, *, max_age_s: float) -> None:
        self._store = store
        self._files = files
        self._max_age_s = max_age_s

    async def run_pass(self) -> None:
        """Clean every job whose retention time is over."""
        while await self._clean_batch() == BATCH:
            pass
        await self._store.release_space()

    async def remove_orphans(self) -> None:
        """Remove files that belong to no job, which a crash has left behind.

        Call it only before the server accepts uploads: the files of an upload are stored a moment
        before its row is written.
        """
        uuids = await in_thread(self._files.stored_uuids)
        for start in range(0, len(uuids), BATCH):
            batch = uuids[start : start + BATCH]
            for uuid in set(batch) - await self._store.lists.with_files(batch):
                logger.warning("Removing the files of %s, which belong to no job", uuid)
                await in_thread(self._files.discard, uuid)

    async def _clean_batch(self) -> int:
        jobs = await self._store.ended_before(self._max_age_s, BATCH)
        for job in jobs:
            try:
                # The row is changed first: a crash in between leaves orphaned files, and never a
                # Completed job without results.
                await self._store.transition(
                    job, JobStatus.CLEANED, "Its files were removed after the retention time"
                )
            except TransitionRefused as refused:
                logger.debug("%s", refused)
                continue
            reach(Point.SERVER_JOB_CLEANED)
            await in_thread(self._files.remove, job)
            if job.array_id is not None:
                array = await self._store.arrays.get(job.array_id)
                if not array.kept:
                    await in_thread(self._files.discard, array.uuid)
            logger.info("Job %d is Cleaned", job.id)
        return len(jobs)
