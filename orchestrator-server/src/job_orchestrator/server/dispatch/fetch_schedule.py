"""Schedule of fetches that no event announces: after a failure, or after a long silence."""

import logging
import time
from collections.abc import Callable

from job_orchestrator.common.status import DISPATCHED_JOB
from job_orchestrator.server.clients.registry import Client
from job_orchestrator.server.model import Job
from job_orchestrator.server.tuning import Tuning

logger = logging.getLogger(__name__)


class FetchSchedule:
    """Knows when each dispatched job has to be fetched again. ``clock`` gives monotonic seconds."""

    def __init__(self, tuning: Tuning, clock: Callable[[], float] = time.monotonic) -> None:
        self._tuning = tuning
        self._clock = clock
        self._retry_at: dict[int, float] = {}
        self._reconcile_at: dict[int, float] = {}
        self._next_reconcile: dict[str, float] = {}

    def postpone_reconcile(self, job: Job) -> None:
        """Record that there is news of a job, which is therefore not reconciled for a while."""
        self._reconcile_at[job.id] = self._clock() + self._tuning.reconcile_after_s

    def begin(self, job: Job) -> None:
        """Record that a fetch of the job begins: a planned one is not needed any more."""
        self._retry_at.pop(job.id, None)
        self.postpone_reconcile(job)

    def retry(self, job: Job, error: Exception) -> None:
        """Plan another fetch of a job because of ``error``."""
        delay_s = self._tuning.fetch_retry_s
        if job.status in DISPATCHED_JOB:
            self._retry_at[job.id] = self._clock() + delay_s
        logger.warning("Job %d: %s; next try in %g s", job.id, error, delay_s)

    def forget(self, job: Job) -> None:
        """Drop all plans for a job that no client has any more."""
        self._retry_at.pop(job.id, None)
        self._reconcile_at.pop(job.id, None)

    def due(self, client: Client) -> list[int]:
        """Return the ids of the client's jobs that have to be fetched now.

        Without an event stream these are all jobs that don't wait for a retry. Otherwise they are
        the due retries and, from time to time, the job that has been without news for longest.
        """
        now = self._clock()
        if not client.pushes:
            return [i for i in client.jobs if self._retry_at.get(i, 0.0) <= now]
        due = [i for i, at in self._retry_at.items() if at <= now and i in client.jobs]
        if client.jobs and now >= self._next_reconcile.get(client.name, 0.0):
            oldest = min(client.jobs, key=lambda i: self._reconcile_at.get(i, 0.0))
            if self._reconcile_at.get(oldest, 0.0) <= now:
                self._next_reconcile[client.name] = now + self._tuning.reconcile_interval_s
                due.append(oldest)
        return due
