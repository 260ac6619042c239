"""Threads that pack results, and that no job can hold for ever.

A thread that reads files of a script can hang in the kernel: on a file system that the script has
mounted, or on a broken disk. Nothing can interrupt it. So these threads report their progress; one
that makes none is written off and replaced, and the process does not wait for it when it ends.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, TypeVar

from job_orchestrator.client.errors import PackingHangs

R = TypeVar("R")

logger = logging.getLogger(__name__)

MAX_REPLACED = 32
"""Threads that are replaced while they hang; beyond it, a machine is too broken to go on."""

CHECK_S = 1.0
CANCEL_S = 2.0
"""Time that work has to notice that nobody waits for it any more."""


class Progress:
    """Progress of work in another thread, which calls ``note`` before each step."""

    def __init__(self) -> None:
        self._noted_at: float | None = None
        self._is_abandoned = False

    def note(self) -> None:
        """Record progress. Raises ``PackingHangs`` if nobody waits for the work any more."""
        if self._is_abandoned:
            raise PackingHangs("The results came too late")
        self._noted_at = time.monotonic()

    def abandon(self) -> None:
        """Make the work end at its next step."""
        self._is_abandoned = True

    def has_stalled(self, stall_s: float) -> bool:
        """Return whether work that has begun made no progress for ``stall_s``."""
        return self._noted_at is not None and time.monotonic() - self._noted_at > stall_s


@dataclass(eq=False)
class _Task:
    work: Callable[[Progress], Any]
    progress: Progress
    done: "asyncio.Future[Any]"
    loop: asyncio.AbstractEventLoop
    is_written_off: bool = False
    is_replaced: bool = False

    def run(self) -> None:
        result, error = None, None
        try:
            self.progress.note()
            result = self.work(self.progress)
        except BaseException as raised:
            error = raised
        with contextlib.suppress(RuntimeError):  # the event loop is closed
            self.loop.call_soon_threadsafe(self._settle, result, error)

    def _settle(self, result: object, error: BaseException | None) -> None:
        if self.done.done():
            return
        if error is not None:
            self.done.set_exception(error)
        else:
            self.done.set_result(result)


class PackingThreads:
    """A fixed number of threads that make progress; work waits until one is free.

    All are started at the beginning: when scripts have used up the machine's processes, no thread
    can be started.
    """

    def __init__(self, count: int, stall_s: float, max_replaced: int = MAX_REPLACED) -> None:
        """Start the threads. Work without progress for ``stall_s`` is given up."""
        self._stall_s = stall_s
        self._max_replaced = max_replaced
        self._tasks: SimpleQueue[_Task] = SimpleQueue()
        self._lock = threading.Lock()
        self._working = count
        self._replaced = 0
        for _ in range(count):
            self._start_thread()

    @property
    def problem(self) -> str:
        """Reason why no work goes on any more; empty if it does."""
        if self._working > 0:
            return ""
        return (
            "No results can be packed: all threads wait for a file system that does not answer."
            " Check the disks, and restart the client"
        )

    async def run(self, work: Callable[[Progress], R]) -> R:
        """Run ``work`` in a thread and return its result.

        Work that is cancelled ends at its next step. Raises ``PackingHangs``, and its errors.
        """
        loop = asyncio.get_running_loop()
        task = _Task(work, Progress(), loop.create_future(), loop)
        self._tasks.put(task)
        try:
            while not task.done.done():
                await asyncio.wait({task.done}, timeout=min(CHECK_S, self._stall_s))
                if not task.done.done() and task.progress.has_stalled(self._stall_s):
                    raise self._write_off(task)
            result: R = task.done.result()
            return result
        except asyncio.CancelledError:
            task.progress.abandon()
            await asyncio.wait({task.done}, timeout=CANCEL_S)
            raise
        finally:
            if task.done.done() and not task.done.cancelled():
                task.done.exception()  # retrieved, so that asyncio does not log it as lost
            else:
                task.done.cancel()

    def _write_off(self, task: _Task) -> PackingHangs:
        """Give up work that hangs, and replace its thread."""
        task.progress.abandon()
        with self._lock:
            task.is_written_off = True
            self._working -= 1
            if self._replaced < self._max_replaced:
                with contextlib.suppress(RuntimeError):  # no thread can be started now
                    self._start_thread()
                    task.is_replaced = True
                    self._working += 1
                    self._replaced += 1
        message = (
            f"The results could not be packed: the file system of the payload did not answer for"
            f" {self._stall_s:g} s"
        )
        logger.error("%s", message)
        return PackingHangs(message)

    def _start_thread(self) -> None:
        # A daemon: the process ends without waiting for it.
        threading.Thread(target=self._serve, name="packer", daemon=True).start()

    def _serve(self) -> None:
        while True:
            task = self._tasks.get()
            task.run()
            with self._lock:
                if task.is_replaced:
                    self._replaced -= 1
                    return
                if task.is_written_off:
                    self._working += 1
