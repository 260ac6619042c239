"""Registry of the measurements, in the order of their execution and of the report."""

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from bench.measurements import (
    accept,
    counts,
    cpu,
    fairness,
    files,
    idle,
    latency,
    longpoll,
    memory,
    scaling,
    throughput,
    transfer,
)
from bench.outcome import Outcome
from bench.sizes import Size

Measure = Callable[[Path, Size], Awaitable[Outcome]]
"""A measurement in an empty folder, which the caller removes."""

MEASUREMENTS: Mapping[str, Measure] = {
    "latency": latency.measure,
    "throughput": throughput.measure,
    "cpu": cpu.measure,
    "fairness": fairness.measure,
    "accept": accept.measure,
    "transfer": transfer.measure,
    "files": files.measure,
    "counts": counts.measure,
    "idle": idle.measure,
    "scaling": scaling.measure,
    "longpoll": longpoll.measure,
    "memory": memory.measure,
}
