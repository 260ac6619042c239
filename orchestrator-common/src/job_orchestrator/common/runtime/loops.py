"""Background loops and owned tasks.

Every background activity of both services is a *pass* (an async function that does all work that is
due and returns) driven by a ``Loop``. Tests call the pass directly instead of waiting for the loop.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from job_orchestrator.common.runtime.backoff import Backoff

logger = logging.getLogger(__name__)

MAX_RETRY_DELAY_S = 30.0


class Loop:
    """Runs ``run_pass`` when woken or ``interval_s`` after the last pass, until stopped.

    - A wake-up during a pass is not lost: another pass follows immediately.
    - A pass that raises is logged and retried with back-off (``interval_s`` doubled at each
      failure, at most ``MAX_RETRY_DELAY_S``). Wake-ups do not shorten that delay, so that a broken
      disk does not cause a busy loop.
    - ``failures`` counts consecutive failed passes, for the health report.
    """

    def __init__(
        self, name: str, run_pass: Callable[[], Awaitable[None]], *, interval_s: float
    ) -> None:
        self.name = name
        self.failures = 0
        self._run_pass = run_pass
        self._interval_s = interval_s
        first_delay_s = min(2 * interval_s, MAX_RETRY_DELAY_S)
        self._backoff = Backoff.exponential(first_delay_s, MAX_RETRY_DELAY_S, jitter=0.0)
        self._woken = asyncio.Event()
        self._stopping = False
        self._task: asyncio.Task[None] | None = None

    def wake(self) -> None:
        """Request a pass as soon as possible. Cheap and idempotent."""
        self._woken.set()

    def start(self) -> None:
        """Start the loop; the first pass runs immediately."""
        self._woken.set()
        self._task = asyncio.create_task(self._run(), name=f"loop:{self.name}")
        self._task.add_done_callback(self._report_death)

    async def stop(self, grace_s: float = 5.0) -> None:
        """Stop the loop: wait ``grace_s`` for a running pass, then cancel it. Idempotent."""
        task, self._task = self._task, None
        if task is None:
            return
        self._stopping = True
        self._woken.set()
        await asyncio.wait({task}, timeout=grace_s)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    @property
    def alive(self) -> bool:
        """True while the loop runs, as it must between ``start`` and ``stop``."""
        return self._task is not None and not self._task.done()

    async def _run(self) -> None:
        while True:
            await self._sleep(self._interval_s)
            if self._stopping:
                return
            self._woken.clear()
            try:
                await self._run_pass()
            except Exception:
                self.failures += 1
                delay_s = self._backoff.delay_s(self.failures)
                logger.exception("%s: pass failed, next try in %.1f s", self.name, delay_s)
                await self._pause(delay_s)
            else:
                self.failures = 0

    async def _sleep(self, timeout_s: float) -> None:
        """Sleep until woken or stopped, at most ``timeout_s``."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._woken.wait()

    async def _pause(self, delay_s: float) -> None:
        """Sleep for ``delay_s`` or until stopped; a wake-up is kept for afterwards."""
        until = asyncio.get_running_loop().time() + delay_s
        woken = False
        while not self._stopping and (left_s := until - asyncio.get_running_loop().time()) > 0:
            woken = woken or self._woken.is_set()
            self._woken.clear()
            await self._sleep(left_s)
        if woken:
            self._woken.set()

    def _report_death(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.critical("%s: loop died", self.name, exc_info=error)


class TaskOwner:
    """Owner of asyncio tasks that nobody awaits: references, counts and cancels them, logs errors.

    ``spawn`` never waits. The caller checks ``free`` before it accepts work, so that ``limit`` acts
    as back-pressure there and not as a hidden queue.
    """

    def __init__(self, name: str, *, limit: int) -> None:
        self.name = name
        self.limit = limit
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def free(self) -> int:
        """Number of tasks that may still be spawned."""
        return max(0, self.limit - len(self._tasks))

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run ``work`` as a task of this owner. An error is logged with the name of the task."""
        task = asyncio.create_task(work, name=f"{self.name}:{name}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def drain(self, timeout_s: float) -> None:
        """Wait until all tasks have ended, at most ``timeout_s``."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=timeout_s)

    async def close(self) -> None:
        """Cancel all tasks and wait for their end."""
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("%s: task failed", task.get_name(), exc_info=error)
