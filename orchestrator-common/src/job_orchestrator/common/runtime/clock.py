"""The time of day for records and for ages of records, which does not jump.

An administrator, or the first contact with a time server, may set the wall clock by hours. Ages
that are differences of its readings are wrong then: results would be removed, and jobs given up,
too early or never. This clock runs with monotonic time from the wall clock of its start. It
approaches a wall clock that was set at a limited rate, as adjtime(3) does, and never goes back.
"""

import logging
import threading
import time
from collections.abc import Callable

logger = logging.getLogger(__name__)

SLEW = 0.1
"""Seconds that the clock approaches the wall clock in each second."""

JUMP_S = 2.0
"""Change of the wall clock that is logged."""

MAX_AHEAD_S = 3600.0
"""Bound of the step to a time that was recorded before the start."""


class SteadyClock:
    """Clock that returns seconds since the epoch. It may be read in any thread."""

    def __init__(
        self,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._now, self._read_at = wall(), monotonic()
        self._offset_s = 0.0

    def __call__(self) -> float:
        """Return the time."""
        with self._lock:
            read_at = self._monotonic()
            elapsed_s = read_at - self._read_at
            steady = self._now + elapsed_s
            offset_s = self._wall() - steady
            self._log_jump(offset_s, elapsed_s)
            step_s = min(max(offset_s, -SLEW * elapsed_s), SLEW * elapsed_s)
            self._now, self._read_at, self._offset_s = steady + step_s, read_at, offset_s - step_s
            return self._now

    def continue_after(self, recorded: float) -> None:
        """Make the clock go on from a time that was recorded before the start, if that is later.

        So the order of records is right although the wall clock was set back while the program did
        not run. A record that is far ahead was itself made with a wrong clock; it has no effect.
        """
        ahead_s = recorded - self()
        if ahead_s > JUMP_S:
            logger.warning("The clock is %.0f s behind the last record; was it set?", ahead_s)
        if 0 < ahead_s <= MAX_AHEAD_S:
            with self._lock:
                self._now += ahead_s
                self._offset_s -= ahead_s

    def _log_jump(self, offset_s: float, elapsed_s: float) -> None:
        jump_s = offset_s - self._offset_s
        if abs(jump_s) > JUMP_S + SLEW * elapsed_s:
            logger.warning(
                "The clock of this machine was set by %+.0f s; ages and time-outs do not follow",
                jump_s,
            )


steady_time = SteadyClock()
"""The clock of this process."""
