"""Sizes of the measurements: a full run, and a smoke run that only checks that they work."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """Amount of work of each measurement. Counts are per round; each round measures its floors."""

    rounds: int
    latency_jobs: int
    throughput_jobs: int
    throughput_slots: tuple[int, ...]
    spawns: int
    """Scripts for the floor of throughput."""
    uploads: int
    fsyncs: int
    """Writes for the floor of accepting uploads."""
    fairness_s: float
    """Run time of a script of the fairness measurement."""
    fairness_rounds: int
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
    """Numbers of ended and of queued jobs for each database, in ascending order."""
    scaling_samples: int
    settle_s: float
    """Pause before a service is measured at rest."""


FULL = Size(
    rounds=5,
    latency_jobs=40,
    throughput_jobs=1000,
    throughput_slots=(10, 1000),
    spawns=500,
    uploads=500,
    fsyncs=800,
    fairness_s=2.0,
    fairness_rounds=3,
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
    fairness_s=0.2,
    fairness_rounds=1,
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
