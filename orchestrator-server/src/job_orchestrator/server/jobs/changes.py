"""Waiting for a job to change, without asking the database again and again."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from job_orchestrator.server.model import Job


class Changes:
    """What one waiter is told: ``wait`` returns once its job has changed since the last call."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self._over = False
        self._job: Job | None = None

    def note(self, job: Job) -> None:
        """The job has changed."""
        self._job = job
        self._changed.set()

    def end(self) -> None:
        """Nothing is worth waiting for any more."""
        self._over = True
        self._changed.set()

    async def wait(self, timeout_s: float) -> Job | None:
        """The job after a change; None if ``timeout_s`` passed without one, or the server stops."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        except TimeoutError:
            return None
        if self._over:
            return None
        self._changed.clear()
        return self._job


class ChangeFeed:
    """Tells those who wait for a job. A listener of the store."""

    def __init__(self) -> None:
        self._waiting: dict[int, set[Changes]] = {}
        self._closed = False

    def publish(self, job: Job) -> None:
        """Wake everyone who waits for this job."""
        for changes in self._waiting.get(job.id, ()):
            changes.note(job)

    @contextmanager
    def following(self, job_id: int) -> Iterator[Changes]:
        """Follow a job. Begin before reading its state, so that no change falls in between."""
        changes = Changes()
        if self._closed:
            changes.end()
        followers = self._waiting.setdefault(job_id, set())
        followers.add(changes)
        try:
            yield changes
        finally:
            followers.discard(changes)
            if not followers:
                self._waiting.pop(job_id, None)

    def close(self) -> None:
        """Let every waiter, present or to come, answer at once: the server stops."""
        self._closed = True
        for followers in self._waiting.values():
            for changes in followers:
                changes.end()
