"""Sizes of the measurements: the full run, and a smoke run that shows that all work."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """Counts are per round. Floors are measured again in each round."""

    rounds: int
    latency_jobs: int
    throughput_jobs: int
    throughput_slots: tuple[int, ...]
    spawns: int
    """Scripts of the floor of throughput."""
    uploads: int
    fsyncs: int
    """Writes of the floor of accepting."""
    counted_jobs: int
    transfer_bytes: int
    transfer_rounds: int
    files: int
    files_rounds: int
    memory_bytes: int
    queued: int
    running: int
    idle_s: float
    waiting: int
    waiting_rounds: int
    scaling: tuple[tuple[int, int], ...]
    """Ended and queued jobs of each database, in ascending order."""
    scaling_samples: int
    settle_s: float
    """Seconds without requests before idle services are measured."""


FULL = Size(
    rounds=5,
    latency_jobs=40,
    throughput_jobs=1000,
    throughput_slots=(10, 1000),
    spawns=500,
    uploads=500,
    fsyncs=800,
    counted_jobs=10,
    transfer_bytes=1_000_000_000,
    transfer_rounds=3,
    files=5000,
    files_rounds=3,
    memory_bytes=10_000_000_000,
    queued=5000,
    running=1000,
    idle_s=10.0,
    waiting=2000,
    waiting_rounds=3,
    scaling=((1000, 1000), (100_000, 1000), (1_000_000, 1000), (1_000_000, 100_000)),
    scaling_samples=200,
    settle_s=3.0,
)

SMOKE = Size(
    rounds=1,
    latency_jobs=3,
    throughput_jobs=12,
    throughput_slots=(4,),
    spawns=4,
    uploads=8,
    fsyncs=8,
    counted_jobs=3,
    transfer_bytes=3_000_000,
    transfer_rounds=1,
    files=20,
    files_rounds=1,
    memory_bytes=3_000_000,
    queued=10,
    running=10,
    idle_s=0.2,
    waiting=20,
    waiting_rounds=1,
    scaling=((10, 10), (20, 20)),
    scaling_samples=3,
    settle_s=0.0,
)
