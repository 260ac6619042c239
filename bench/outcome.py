"""Outcome of a measurement: figures with targets and floors, and further details."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Row:
    """One figure with its target and its floor.

    ``limit`` is the target, in the unit of ``measured``, or None without a target. It is calculated
    from the floors of the same run; ``rule`` describes how. ``at_most``: the limit is a maximum,
    else a minimum.
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
        """True if the figure meets its target; None without a target."""
        if self.limit is None:
            return None
        return self.measured <= self.limit if self.at_most else self.measured >= self.limit

    @property
    def ratio(self) -> float | None:
        """The figure in multiples of the floor."""
        return self.measured / self.floor if self.floor else None


@dataclass(frozen=True)
class Outcome:
    """Rows and details of one measurement. ``details`` is stored unchanged in the result file."""

    rows: list[Row]
    details: dict[str, Any] = field(default_factory=dict)
