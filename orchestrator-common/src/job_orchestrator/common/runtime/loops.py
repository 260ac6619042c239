"""The one loop engine: run a pass on wake-up, after an interval, or not at all once stopped.

Every background activity of both services is a *pass* (an async function that does what is due now
and returns) driven by a ``Loop``. A test calls the pass directly instead of waiting for the loop.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

logger = logging.getLogger(__name__)

MAX_BACKOFF_S = 30.0


class Loop:
    """Runs ``run_pass`` when woken or ``interval_s`` after the last pass, until stopped.

    - A wake-up that comes during a pass is not lost: another pass follows at once.
    - A pass that raises is logged and retried after a growing pause (``interval_s`` doubled each
      time, at most ``MAX_BACKOFF_S``); wake-ups don't shorten that pause, so that a broken disk
      doesn't become a busy loop.
    - ``failures`` counts consecutive failed passes, for the health report.
    """

    def __init__(
        self, name: str, run_pass: Callable[[], Awaitable[None]], *, interval_s: float
    ) -> None:
        self.name = name
        self.failures = 0
        self._run_pass = run_pass
        self._interval_s = interval_s
        self._woken = asyncio.Event()
        self._stopping = False
        self._task: asyncio.Task[None] | None = None

    def wake(self) -> None:
        """Ask for a pass as soon as possible. Cheap, and may be called any number of times."""
        self._woken.set()

    def start(self) -> None:
        """Start the loop; the first pass runs at once."""
        self._woken.set()
        self._task = asyncio.create_task(self._run(), name=f"loop:{self.name}")
        self._task.add_done_callback(self._report_death)

    async def stop(self, grace_s: float = 5.0) -> None:
        """Let a running pass end within ``grace_s``, then cancel it. Safe to call twice."""
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
        """Whether the loop runs, as it must between ``start`` and ``stop``."""
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
                pause_s = min(self._interval_s * 2**self.failures, MAX_BACKOFF_S)
                logger.exception("%s: pass failed, next try in %.1f s", self.name, pause_s)
                await self._pause(pause_s)
            else:
                self.failures = 0

    async def _sleep(self, timeout_s: float) -> None:
        """Return when woken or stopped, or when the time is up."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._woken.wait()

    async def _pause(self, pause_s: float) -> None:
        """Return when the time is up or the loop is stopped, but not when it is only woken."""
        until = asyncio.get_running_loop().time() + pause_s
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
    """Owns tasks that would otherwise run ignored: keeps them, bounds them, reports their death.

    ``spawn`` never waits; ``limit`` is checked by the caller through ``free``, so that a full owner
    shows as back-pressure where work is taken on, not as a hidden queue.
    """

    def __init__(self, name: str, *, limit: int) -> None:
        self.name = name
        self.limit = limit
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def free(self) -> int:
        """How many more tasks may be spawned now."""
        return max(0, self.limit - len(self._tasks))

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run ``work`` as a task of this owner. What it raises is logged with its name."""
        task = asyncio.create_task(work, name=f"{self.name}:{name}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def drain(self, timeout_s: float) -> None:
        """Wait until no task is left, or ``timeout_s`` passed."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=timeout_s)

    async def close(self) -> None:
        """Cancel what still runs and wait for its end."""
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("%s: task failed", task.get_name(), exc_info=error)
