"""Threads, and work that a cancellation must not leave unfinished."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Generic, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

P = ParamSpec("P")
R = TypeVar("R")

_pools: WeakKeyDictionary[asyncio.AbstractEventLoop, ThreadPoolExecutor] = WeakKeyDictionary()


async def run_to_completion(work: Coroutine[Any, Any, R]) -> R:
    """Await ``work``; a cancellation takes effect only after ``work`` has ended."""
    running = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait({running})
        raise


def start_threads(count: int) -> None:
    """Start the threads of the running event loop, for ``in_thread`` and for aiohttp.

    They are started in advance: threads count as processes, and once the machine's limit of
    processes is reached, none can be started.
    """
    loop = asyncio.get_running_loop()
    pool = _pools[loop] = ThreadPoolExecutor(count, thread_name_prefix="worker")
    loop.set_default_executor(pool)
    barrier = threading.Barrier(count)
    for _ in range(count):
        pool.submit(barrier.wait)


async def in_thread(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run ``function`` in a thread and return its result.

    A thread can't be cancelled. ``asyncio.to_thread`` would return immediately on cancellation,
    while the function still writes to a folder that the caller's clean-up removes; here the
    cancellation takes effect when the function has returned.

    A call costs more than most functions that it runs (0.05 ms of CPU time, and up to 0.2 ms on an
    idle machine, whose CPUs must wake up), so put work that belongs together into one function.
    """
    loop = asyncio.get_running_loop()
    pool = _pools.get(loop)
    if pool is None:
        pool = _pools[loop] = ThreadPoolExecutor(thread_name_prefix="worker")
    pending: PendingResult[R] = PendingResult(loop)
    pool.submit(_run, partial(function, *args, **kwargs), pending, loop)
    return await pending.wait()


def _run(
    work: Callable[[], R], pending: "PendingResult[R]", loop: asyncio.AbstractEventLoop
) -> None:
    try:
        result = work()
    except BaseException as error:
        loop.call_soon_threadsafe(pending.fail, error)
        return
    loop.call_soon_threadsafe(pending.succeed, result)


class PendingResult(Generic[R]):
    """Future result of work that cannot be cancelled.

    Exactly one task may await it; cancelling that task takes effect only when the work has ended.
    Equivalent to a shielded future, with one iteration of the event loop less.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._future: asyncio.Future[R] = loop.create_future()
        self._over: asyncio.Future[None] | None = None
        self.settled = False

    def succeed(self, result: R) -> None:
        """End the work with a result."""
        if self._settle():
            self._future.set_result(result)

    def fail(self, error: BaseException) -> None:
        """End the work with an error."""
        if self._settle():
            self._future.set_exception(error)

    async def wait(self) -> R:
        """Return the result or raise the error. A cancellation takes effect after the work."""
        try:
            return await self._future
        except asyncio.CancelledError:
            if not self.settled:
                self._over = self._loop.create_future()
                await asyncio.wait({self._over})
            elif not self._future.cancelled():
                # The work failed, too. Retrieve its error, so that asyncio does not log it as lost.
                self._future.exception()
            raise

    def _settle(self) -> bool:
        """Mark the work as ended; return whether a task still waits for the outcome."""
        self.settled = True
        if self._over is not None:
            self._over.set_result(None)
        return not self._future.cancelled()
