"""Notification of requests that wait for a job to change, instead of polling the store."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from job_orchestrator.server.model import Job


class Changes:
    """Subscription of one waiter to the changes of one job."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self._closed = False
        self._job: Job | None = None

    def notify(self, job: Job) -> None:
        """Make ``job``, as it is after a change, available to ``wait``."""
        self._job = job
        self._changed.set()

    def close(self) -> None:
        """Make every ``wait`` return None immediately."""
        self._closed = True
        self._changed.set()

    async def wait(self, timeout_s: float) -> Job | None:
        """Return the job after its next change, or after one since the previous call.

        Returns None after ``timeout_s`` without a change, and when the feed is closed.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        except TimeoutError:
            return None
        if self._closed:
            return None
        self._changed.clear()
        return self._job


class ChangeFeed:
    """Registry of the waiters for each job. ``publish`` subscribes to the store."""

    def __init__(self) -> None:
        self._waiters: dict[int, set[Changes]] = {}
        self._closed = False

    @property
    def waiters(self) -> int:
        """Number of waiters, for all jobs together."""
        return sum(map(len, self._waiters.values()))

    def publish(self, job: Job) -> None:
        """Notify all waiters for a job that the job has changed."""
        for changes in self._waiters.get(job.id, ()):
            changes.notify(job)

    @contextmanager
    def following(self, job_id: int) -> Iterator[Changes]:
        """Subscribe to the changes of a job.

        Subscribe before reading the job from the store, so that no change is missed in between.
        """
        changes = Changes()
        if self._closed:
            changes.close()
        waiters = self._waiters.setdefault(job_id, set())
        waiters.add(changes)
        try:
            yield changes
        finally:
            waiters.discard(changes)
            if not waiters:
                self._waiters.pop(job_id, None)

    def close(self) -> None:
        """Release all present and future waiters without a change, because the server stops."""
        self._closed = True
        for waiters in self._waiters.values():
            for changes in waiters:
                changes.close()
