"""Back-off: the delay before a retry, by the number of failures in a row."""

import random
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Backoff:
    """A schedule of delays in seconds, with jitter.

    ``delays_s`` holds the delay after the first, second, … failure; the last one holds for all
    further failures. ``jitter`` is the largest part of a delay that is subtracted at random, so
    that many callers that failed together do not all retry together.
    """

    delays_s: tuple[float, ...]
    jitter: float = 0.1

    @classmethod
    def exponential(
        cls, first_s: float, max_s: float, factor: float = 2.0, jitter: float = 0.1
    ) -> "Backoff":
        """Create a schedule that grows by ``factor``, from ``first_s`` up to ``max_s``."""
        delays_s = [first_s]
        while delays_s[-1] < max_s:
            delays_s.append(min(delays_s[-1] * factor, max_s))
        return cls(tuple(delays_s), jitter)

    def delay_s(self, failures: int, random_part: Callable[[], float] = random.random) -> float:
        """Return the delay after ``failures`` failures in a row (1 or more).

        ``random_part`` returns a number from 0 to 1.
        """
        delay_s = self.delays_s[min(failures, len(self.delays_s)) - 1]
        return delay_s * (1.0 - self.jitter * random_part())
