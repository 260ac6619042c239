"""Removes the files of jobs that ended long ago, and folders that belong to no job."""

import logging

from job_orchestrator.common.runtime.fault_injection import Point, reach
from job_orchestrator.common.runtime.threads import in_thread
from job_orchestrator.common.status import JobStatus, TransitionRefused
from job_orchestrator.server.files.folder import JobFiles
from job_orchestrator.server.store.base import JobStore

logger = logging.getLogger(__name__)

BATCH = 200


class Cleaner:
    """The cleaner's pass.

    ``max_age_s`` counts from a job's end, so a job that runs for longer than that is never touched.
    """

    def __init__(self, store: JobStore, files: JobFiles, *, max_age_s: float) -> None:
        self._store = store
        self._files = files
        self._max_age_s = max_age_s

    async def run_pass(self) -> None:
        """Clean every job that is due."""
        while await self._clean_batch() == BATCH:
            pass

    async def _clean_batch(self) -> int:
        jobs = await self._store.ended_before(self._max_age_s, BATCH)
        for job in jobs:
            try:
                # The row first: a crash in between leaves a folder that belongs to no job, not a
                # Completed job without its results.
                await self._store.transition(
                    job, JobStatus.CLEANED, "Its files were removed after the retention time"
                )
            except TransitionRefused as refused:
                logger.debug("%s", refused)
                continue
            reach(Point.SERVER_JOB_CLEANED)
            await in_thread(self._files.remove, job)
            logger.info("Job %d is Cleaned", job.id)
        return len(jobs)

    async def remove_orphans(self) -> None:
        """Remove folders that a crash left behind.

        Only while no upload can arrive, that is before the server serves: an upload has its folder
        a moment before its row.
        """
        names = await in_thread(self._files.folders)
        for start in range(0, len(names), BATCH):
            batch = names[start : start + BATCH]
            for name in set(batch) - await self._store.known(batch):
                logger.warning("Removing folder %s, which belongs to no job", name)
                await in_thread(self._files.remove_orphan, name)
