"""Usage of slots: slot-seconds that decay, so that what was used long ago counts little."""

import math
from dataclasses import dataclass, replace

HALF_LIFE_S = 7 * 86_400.0
"""Half-life of usage, unless another one is given."""


@dataclass(frozen=True)
class Usage:
    """The slot-seconds that a user of a service has used, as of the time ``at``.

    From then on the user holds ``slots``. So the usage at any later time follows without the jobs,
    and a record changes only when a slot is taken or given back.
    """

    seconds: float = 0.0
    slots: int = 0
    at: float = 0.0

    def seconds_at(self, now: float, half_life_s: float) -> float:
        """Return the usage at ``now``. A second that was used ``half_life_s`` ago counts half.

        Without a half-life nothing is remembered: the usage is 0.
        """
        if half_life_s <= 0:
            return 0.0
        rate = math.log(2) / half_life_s
        passed_s = max(now - self.at, 0.0)
        kept = math.exp(-rate * passed_s)
        return self.seconds * kept + self.slots * (1 - kept) / rate

    def less(self, seconds: float) -> "Usage":
        """Return the usage without ``seconds`` that were counted a short time ago by mistake."""
        return replace(self, seconds=max(self.seconds - seconds, 0.0))

    def holding(self, slots: int, now: float, half_life_s: float) -> "Usage":
        """Return the usage of a user who holds ``slots`` from ``now`` on."""
        return Usage(self.seconds_at(now, half_life_s), max(slots, 0), max(now, self.at))
