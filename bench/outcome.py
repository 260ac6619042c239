"""What a measurement found: figures that are judged, each beside its floor, and whatever else."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Row:
    """One figure and what it has to reach.

    ``limit`` is in the unit of ``measured`` and was worked out from the floors of the same run;
    ``rule`` says how, in words. None: there is nothing to reach. ``at_most``: smaller is better.
    """

    what: str
    measured: float
    unit: str
    limit: float | None = None
    rule: str = ""
    at_most: bool = True
    floor: float | None = None
    floor_name: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the figure reaches what it has to."""
        if self.limit is None:
            return None
        return self.measured <= self.limit if self.at_most else self.measured >= self.limit

    @property
    def ratio(self) -> float | None:
        """Measured, in multiples of the floor."""
        return self.measured / self.floor if self.floor else None


@dataclass(frozen=True)
class Outcome:
    """All that one measurement found. ``details`` is kept in the result file as it is."""

    rows: list[Row]
    details: dict[str, Any] = field(default_factory=dict)
