"""Times and sizes as people write them: a number with an optional unit."""

from collections.abc import Mapping

from job_orchestrator.common.protocol.durations import parse_number

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


def parse_size_bytes(text: str) -> int | None:
    """Convert ``1000``, ``400MB`` or ``10 GiB`` to bytes; None if it is not a size."""
    size = parse_number(text, BYTES_PER_UNIT)
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
