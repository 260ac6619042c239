"""Times and sizes as people write them: a number with an optional unit."""

import re
from collections.abc import Mapping

SECONDS_PER_UNIT: Mapping[str, float] = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
BYTES_PER_UNIT: Mapping[str, float] = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}

_SIZE_UNITS = (
    ("GB", 10**9),
    ("GiB", 2**30),
    ("MB", 10**6),
    ("MiB", 2**20),
    ("kB", 10**3),
    ("B", 1),
)
_DURATION_UNITS = (("days", 86400), ("h", 3600), ("min", 60))
# Larger numbers overflow the 64-bit integers of SQLite and of the kernel.
_MAX_NUMBER = 1e18
_NUMBER_WITH_UNIT = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)", re.IGNORECASE)


def parse_duration_s(text: str) -> float | None:
    """Convert ``90``, ``30s``, ``5m``, ``48h`` or ``2d`` to seconds; None if it is not a time."""
    return _parse(text, SECONDS_PER_UNIT)


def parse_size_bytes(text: str) -> int | None:
    """Convert ``1000``, ``400MB`` or ``10 GiB`` to bytes; None if it is not a size."""
    size = _parse(text, BYTES_PER_UNIT)
    return None if size is None else int(size)


def size_text(size_bytes: int) -> str:
    """Write a size with the largest unit that keeps it exact: ``2 GB``, ``1536 MiB``."""
    unit, factor = next((u, f) for u, f in _SIZE_UNITS if size_bytes % f == 0)
    return f"{size_bytes // factor} {unit}"


def duration_text(seconds: float) -> str:
    """Write a duration with the largest unit that keeps it exact: ``2 days``, ``90 s``."""
    for unit, factor in _DURATION_UNITS:
        if seconds and seconds % factor == 0:
            count = int(seconds // factor)
            return f"{count} {unit.removesuffix('s') if count == 1 else unit}"
    return f"{seconds:g} s"


def _parse(text: str, units: Mapping[str, float]) -> float | None:
    match = _NUMBER_WITH_UNIT.fullmatch(text)
    if match is None or match[2].lower() not in units:
        return None
    number = float(match[1]) * units[match[2].lower()]
    return number if number < _MAX_NUMBER else None
