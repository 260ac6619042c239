"""Work that a cancellation must not leave half done."""

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
    """Await ``work``; when cancelled meanwhile, let it end first and only then be cancelled."""
    running = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait({running})
        raise


def start_threads(count: int) -> None:
    """Start the threads of the running loop now, for ``in_thread`` and for what aiohttp does.

    They count as processes: where the limit of those is reached, none can be started.
    """
    loop = asyncio.get_running_loop()
    pool = _pools[loop] = ThreadPoolExecutor(count, thread_name_prefix="worker")
    loop.set_default_executor(pool)
    barrier = threading.Barrier(count)
    for _ in range(count):
        pool.submit(barrier.wait)


async def in_thread(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run ``function`` in a thread and return its result.

    A thread can't be cancelled. ``asyncio.to_thread`` would return at once on cancellation while
    the function goes on writing to a folder that the caller's clean-up is just removing; here the
    cancellation takes effect when the function has returned.

    Each call costs more than most of what is done in it (0.05 ms of CPU time, and up to 0.2 ms on
    an idle machine, whose CPUs must wake up): what belongs together goes into one function.
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
    """What something that can't be cancelled will bring about; for one task to wait for.

    Does what a shielded future does, in one turn of the loop less.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._future: asyncio.Future[R] = loop.create_future()
        self._over: asyncio.Future[None] | None = None
        self.settled = False

    def succeed(self, result: R) -> None:
        """It has this result."""
        if self._settle():
            self._future.set_result(result)

    def fail(self, error: BaseException) -> None:
        """It raised this."""
        if self._settle():
            self._future.set_exception(error)

    async def wait(self) -> R:
        """Return or raise what it brings about; when cancelled, only once it has."""
        try:
            return await self._future
        except asyncio.CancelledError:
            if not self.settled:
                self._over = self._loop.create_future()
                await asyncio.wait({self._over})
            elif not self._future.cancelled():
                # Both at once; nobody else will look at it.
                self._future.exception()
            raise

    def _settle(self) -> bool:
        """Whether somebody waits for the outcome."""
        self.settled = True
        if self._over is not None:
            self._over.set_result(None)
        return not self._future.cancelled()
