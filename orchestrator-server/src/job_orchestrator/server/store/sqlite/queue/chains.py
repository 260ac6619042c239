"""Long chains of dependent jobs, whose consequences don't fit into one transaction."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from job_orchestrator.common.runtime.loops import TaskOwner
from job_orchestrator.server.errors import StoreError
from job_orchestrator.server.model import Job
from job_orchestrator.server.store.sqlite.queue.dependencies import Consequences, follow_up
from job_orchestrator.server.store.sqlite.writer import Writer

MAX_CHAINS = 1000
RETRY_S = 1.0

logger = logging.getLogger(__name__)


class Publish(Protocol):
    """Function that caches changed jobs and notifies subscribers."""

    def __call__(self, jobs: Sequence[Job], *, status_changed: bool = True) -> None:
        """Publish jobs of a commit."""


class Chains:
    """Publishes the consequences of ends, and applies those that are left.

    What a crash or a stop leaves is applied at the next start.
    """

    def __init__(self, writer: Writer, now: Callable[[], float], publish: Publish) -> None:
        self._writer = writer
        self._now = now
        self._publish = publish
        self._tasks = TaskOwner("dependencies", limit=MAX_CHAINS)
        self._closed = False

    def committed(self, consequences: Consequences) -> None:
        """Publish what was committed, and begin to apply what is left."""
        self._publish(consequences.ended)
        self._publish(consequences.released, status_changed=False)
        # A transaction that was begun is committed after its task was cancelled.
        if consequences.unfinished and not self._closed:
            self._tasks.spawn(self._follow_up(consequences.unfinished), "chain")

    async def close(self) -> None:
        """Stop between two transactions."""
        self._closed = True
        await self._tasks.close()

    async def _follow_up(self, jobs: Sequence[Job]) -> None:
        work = partial(follow_up, jobs=jobs, now=self._now())
        while True:
            try:
                # What is left after this transaction gets a task of its own.
                await self._writer.run(work, committed=self.committed, durable=True)
            except StoreError as error:
                logger.warning("The jobs after %s can't be changed yet: %s", jobs[0].id, error)
                await asyncio.sleep(RETRY_S)
            else:
                return
