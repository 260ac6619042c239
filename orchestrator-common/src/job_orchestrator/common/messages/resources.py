"""Resources that jobs ask for and clients offer: CPUs, memory and GPUs."""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated

import msgspec

CPUS, MEMORY, GPUS = "cpus", "memory", "gpus"
"""Fields of the form with which a job is submitted."""


class Resources(msgspec.Struct, frozen=True):
    """Amounts of resources. In what a job asks for, 0 means that it asks for none."""

    cpus: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    memory_bytes: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] = 0
    gpus: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] = 0

    def __bool__(self) -> bool:
        return bool(self.cpus or self.memory_bytes or self.gpus)

    def __add__(self, other: "Resources") -> "Resources":
        return Resources(
            self.cpus + other.cpus,
            self.memory_bytes + other.memory_bytes,
            self.gpus + other.gpus,
        )

    def amounts(self) -> tuple[float, int, int]:
        """Return CPUs, bytes of memory, and GPUs."""
        return self.cpus, self.memory_bytes, self.gpus

    def less(self, other: "Resources") -> "Resources":
        """Return what is left without ``other``; nothing is below 0."""
        return Resources(
            max(self.cpus - other.cpus, 0.0),
            max(self.memory_bytes - other.memory_bytes, 0),
            max(self.gpus - other.gpus, 0),
        )

    def hold(self, wanted: "Resources") -> bool:
        """Return whether ``wanted`` fits into these resources."""
        return (
            wanted.cpus <= self.cpus + 1e-9
            and wanted.memory_bytes <= self.memory_bytes
            and wanted.gpus <= self.gpus
        )

    def __str__(self) -> str:
        parts = [f"{self.cpus:g} CPU{'s' * (self.cpus != 1)}"] if self.cpus else []
        parts += [f"{_memory_text(self.memory_bytes)} of memory"] if self.memory_bytes else []
        parts += [f"{self.gpus} GPU{'s' * (self.gpus != 1)}"] if self.gpus else []
        return ", ".join(parts) or "no resources"

    def fields(self) -> list[tuple[str, str]]:
        """Return the form fields; none for a job that asks for nothing, as old clients expect."""
        values = {CPUS: f"{self.cpus:g}", MEMORY: str(self.memory_bytes), GPUS: str(self.gpus)}
        return [(name, text) for name, text in values.items() if text != "0"]


NOTHING = Resources()
"""Resources that a job asks for which only needs a slot."""


def resources_of(fields: Mapping[str, Sequence[str]]) -> Resources:
    """Read the form fields that ``Resources.fields`` wrote. Raises ``ValueError``."""
    if not (CPUS in fields or MEMORY in fields or GPUS in fields):
        return NOTHING
    cpus, memory, gpus = (fields.get(name, ["0"])[-1] for name in (CPUS, MEMORY, GPUS))
    found = Resources(float(cpus), int(memory), int(gpus))
    if not (math.isfinite(found.cpus) and min(found.cpus, found.memory_bytes, found.gpus) >= 0):
        raise ValueError("resources are numbers from 0")
    return found


def _memory_text(size_bytes: int) -> str:
    for unit, factor in (("GB", 10**9), ("GiB", 2**30), ("MB", 10**6), ("MiB", 2**20)):
        if size_bytes % factor == 0:
            return f"{size_bytes // factor} {unit}"
    return f"{size_bytes / 10**9:.1f} GB"
