"""Numbers with an optional unit, and times in this notation: ``90``, ``30s``, ``5m``."""

import re
from collections.abc import Mapping

SECONDS_PER_UNIT: Mapping[str, float] = {
    "": 1,
    "s": 1,
    "m": 60,
    "min": 60,
    "h": 3600,
    "d": 86400,
    "day": 86400,
    "days": 86400,
}
"""Short units, and those in which jo and the logs show times: what is shown can be given, too."""

# Larger numbers overflow the 64-bit integers of SQLite and of the kernel.
MAX_NUMBER = 1e18
_NUMBER_WITH_UNIT = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)", re.IGNORECASE)


def parse_duration_s(text: str) -> float | None:
    """Convert ``90``, ``30s``, ``5m``, ``48h`` or ``2d`` to seconds; None if it is not a time."""
    return parse_number(text, SECONDS_PER_UNIT)


def parse_number(text: str, units: Mapping[str, float]) -> float | None:
    """Convert a number with one of ``units``, in any case, to a multiple of the smallest unit."""
    match = _NUMBER_WITH_UNIT.fullmatch(text)
    if match is None or match[2].lower() not in units:
        return None
    number = float(match[1]) * units[match[2].lower()]
    return number if number < MAX_NUMBER else None
