"""Schedules packing so that small results never queue behind large ones.

The size of results shows only while they are packed. So each run of packing begins with the small
budget, which is used up within a second; a run that exceeds it is repeated from the beginning with
one of the few permits for large results, and its first permit is free for others again.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TypeVar

from job_orchestrator.client.errors import PackingTookTooLong
from job_orchestrator.client.results.threads import PackingThreads, Progress

R = TypeVar("R")

CheckWanted = Callable[[], None]
"""Raises if the result of packing is not wanted any more. Called from another thread."""


@dataclass(frozen=True)
class PackingLimits:
    """Limits of small results, and the time for large ones."""

    small_bytes: int = 64 << 20
    small_entries: int = 10_000
    """Files and folders. With these values the small budget is well below a second of work."""
    min_time_s: float = 600.0
    """The time that any large results may take. A script that ran for longer has as long."""
    stall_s: float = 60.0
    """The time without any progress after which a thread counts as held by a file system."""


UNLIMITED = 2
"""Threads for work without a permit, which is short."""


class Budget:
    """An unlimited budget of a run of packing.

    The run reports each entry and each file to it in advance, and calls ``check`` before each
    block; any of these may raise to stop the run.
    """

    def __init__(self, check_wanted: CheckWanted, progress: Progress) -> None:
        self.progress = progress

        def check() -> None:
            progress.note()
            check_wanted()

        self.check = check

    def count_entry(self) -> None:
        """Count a file or folder that was found."""
        self.check()

    def count_bytes(self, size: int) -> None:
        """Count the bytes of a file before they are read."""

    def count_link(self) -> None:
        """Count a symbolic link before it is followed."""


class BudgetExceeded(Exception):
    """The results are too large for the small budget."""


class SmallBudget(Budget):
    """Limit on entries and bytes of results packed as small; beyond it ``BudgetExceeded``.

    It has no time limit, so that small results do not count as large on a slow machine.
    """

    def __init__(
        self, check_wanted: CheckWanted, progress: Progress, limits: PackingLimits
    ) -> None:
        super().__init__(check_wanted, progress)
        self._entries, self._bytes = limits.small_entries, limits.small_bytes

    def count_entry(self) -> None:
        super().count_entry()
        self._entries -= 1
        if self._entries < 0:
            raise BudgetExceeded

    def count_bytes(self, size: int) -> None:
        self._bytes -= size
        if self._bytes < 0:
            raise BudgetExceeded


class MemoryBudget(SmallBudget):
    """The small budget of results that are packed in the event loop, which follows no links.

    A link can lead to a file system that does not answer.
    """

    def count_link(self) -> None:
        raise BudgetExceeded


class TimeBudget(Budget):
    """A budget of ``limit_s`` seconds; raises ``PackingTookTooLong``."""

    def __init__(self, check_wanted: CheckWanted, progress: Progress, limit_s: float) -> None:
        deadline = time.monotonic() + limit_s

        def check() -> None:
            check_wanted()
            if time.monotonic() > deadline:
                raise PackingTookTooLong(
                    f"The results took longer than {limit_s:.0f} s to pack;"
                    " only the output of run.sh was kept"
                )

        super().__init__(check, progress)


class PackingQueue:
    """Runs packing in threads, with ``small`` permits for small and ``large`` for large results."""

    def __init__(self, small: int, large: int, limits: PackingLimits) -> None:
        self._small = asyncio.Semaphore(small)
        self._large = asyncio.Semaphore(large)
        self._limits = limits
        self._threads = PackingThreads(small + large + UNLIMITED, limits.stall_s)

    @property
    def problem(self) -> str:
        """Reason why nothing can be packed any more; empty if it can."""
        return self._threads.problem

    async def run(
        self,
        work: Callable[[Budget], R],
        check_wanted: CheckWanted,
        *,
        stop_waiting: asyncio.Event,
        script_time_s: float = 0.0,
    ) -> R:
        """Run ``work`` in a thread as soon as it has a permit; repeat it if the results are large.

        Once ``stop_waiting`` is set, ``work`` runs without a permit; ``check_wanted`` must make it
        short then. ``script_time_s`` is how long the script ran. Raises ``PackingHangs``, and the
        errors of ``work``.
        """
        with contextlib.suppress(BudgetExceeded):
            async with _permit(self._small, stop_waiting):
                return await self._threads.run(
                    lambda progress: work(SmallBudget(check_wanted, progress, self._limits))
                )
        limit_s = max(self._limits.min_time_s, script_time_s)
        async with _permit(self._large, stop_waiting):
            return await self._threads.run(
                lambda progress: work(TimeBudget(check_wanted, progress, limit_s))
            )


@contextlib.asynccontextmanager
async def _permit(permits: asyncio.Semaphore, stop_waiting: asyncio.Event) -> AsyncIterator[None]:
    """Hold a permit, or none if ``stop_waiting`` is set before one is free."""
    if not permits.locked():
        async with permits:
            yield
        return
    acquired = asyncio.ensure_future(permits.acquire())
    stopped = asyncio.ensure_future(stop_waiting.wait())
    try:
        await asyncio.wait({acquired, stopped}, return_when=asyncio.FIRST_COMPLETED)
        yield
    finally:
        stopped.cancel()
        if not acquired.cancel():
            permits.release()
