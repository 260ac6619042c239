"""Placement: which client the next jobs go to. Pure functions on the state of the clients."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from job_orchestrator.server.clients.registry import Client

UNKNOWN_CPU = 100.0
"""Load of a client that has not reported any: it comes after those that have."""


@dataclass(frozen=True)
class Candidate:
    """A client that a job may be sent to.

    ``jobs`` counts its active jobs; ``slots`` and ``cpu`` (per cent) are as it reported them, or
    None. ``reachable``: no problem is known. ``on_trial``: it failed last, so it gets one job only.
    """

    name: str
    jobs: int
    slots: int | None = None
    cpu: float | None = None
    reachable: bool = True
    on_trial: bool = False


def candidate(client: Client) -> Candidate:
    """Return what placement has to know of a client."""
    return Candidate(
        client.name,
        len(client.jobs),
        client.slots,
        client.cpu,
        reachable=not client.problem,
        on_trial=client.failures > 0,
    )


def place(candidates: Sequence[Candidate], limit: int) -> list[str]:
    """Return the names of the clients that the next ``limit`` jobs go to, in order.

    Each job goes to the client with the most free slots, then the lowest CPU load, then the first
    one. Unreachable clients are used only if no other one is left. The result is shorter than
    ``limit`` if all candidates are on trial, and empty if there are none.
    """
    usable = [each for each in candidates if each.reachable] or candidates
    heap = [(*_preference(each), number) for number, each in enumerate(usable)]
    heapq.heapify(heap)
    placed: list[str] = []
    while heap and len(placed) < limit:
        jobs_beyond_slots, cpu, number = heap[0]
        placed.append(usable[number].name)
        if usable[number].on_trial:
            heapq.heappop(heap)
        else:
            heapq.heapreplace(heap, (jobs_beyond_slots + 1, cpu, number))
    return placed


def _preference(each: Candidate) -> tuple[int, float]:
    # A client that reports no slots counts as having none beyond its jobs: clients that report free
    # slots come first, and of the silent ones that with the fewest jobs.
    return (
        each.jobs - (each.slots or 0),
        each.cpu if each.cpu is not None else UNKNOWN_CPU,
    )
