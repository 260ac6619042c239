"""Short work in the event loop, which moves to threads while it is slow."""

import logging
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from job_orchestrator.common.runtime.threads import in_thread

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

SLOW_S = 0.05
"""Time that no short work takes on a disk that works well, in seconds."""

RECOVERY_S = 10.0


class ShortWork:
    """Runs functions of some tens of microseconds, such as writing a few small files.

    A hop to a thread would cost more than the functions. But they use a disk, and on a disk that
    hangs each of them would hold up all requests. After one that took longer than ``slow_s``,
    functions run in threads for ``recovery_s`` seconds.
    """

    def __init__(
        self,
        slow_s: float = SLOW_S,
        recovery_s: float = RECOVERY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._slow_s = slow_s
        self._recovery_s = recovery_s
        self._clock = clock
        self._slow_until = float("-inf")

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a function and return its result."""
        if self._clock() < self._slow_until:
            return await in_thread(function, *args, **kwargs)
        begun = self._clock()
        try:
            return function(*args, **kwargs)
        finally:
            ended = self._clock()
            if ended - begun > self._slow_s:
                self._slow_until = ended + self._recovery_s
                logger.info(
                    "Short work took %.0f ms; it runs in threads for %g s",
                    (ended - begun) * 1000,
                    self._recovery_s,
                )
