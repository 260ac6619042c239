"""Outcome of a measurement: judged figures, each with its floor, and details."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Row:
    """One figure and its target.

    ``limit`` is in the unit of ``measured`` and was computed from the floors of the same run;
    ``rule`` says how, in words. None: there is no target. ``at_most``: smaller is better.
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
        """Return whether the figure reaches its target."""
        if self.limit is None:
            return None
        return self.measured <= self.limit if self.at_most else self.measured >= self.limit

    @property
    def ratio(self) -> float | None:
        """Figure in multiples of the floor."""
        return self.measured / self.floor if self.floor else None


@dataclass(frozen=True)
class Outcome:
    """Figures of one measurement. ``details`` is stored in the result file unchanged."""

    rows: list[Row]
    details: dict[str, Any] = field(default_factory=dict)
