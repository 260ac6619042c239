"""Placement: which client the next jobs go to. Pure functions on the state of the clients."""

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

from job_orchestrator.server.clients.registry import Client

UNKNOWN_CPU = 100.0
"""Load of a client that has not reported any: it comes after those that have."""


@dataclass(frozen=True)
class Candidate:
    """A client that a job may be sent to.

    ``slots`` and ``cpu`` (per cent) are as it reported them, or None. ``occupied`` counts the slots
    that its jobs occupy or wait for. ``look_ahead`` is how many jobs may wait there for a slot.
    ``on_trial``: it failed last, so it gets one job only. ``turn`` is the number of the last job
    that was sent there: of equal clients, the one with the lowest is next.
    """

    name: str
    occupied: int
    slots: int | None = None
    look_ahead: int = 0
    cpu: float | None = None
    on_trial: bool = False
    turn: int = 0

    @property
    def load(self) -> float:
        """Load in steps: smaller differences are chance."""
        return round(UNKNOWN_CPU if self.cpu is None else self.cpu, -1)

    @property
    def room(self) -> float:
        """Number of jobs that it takes now. A client that reports no slots takes any number."""
        if self.slots is None:
            room = math.inf
        else:
            room = max(self.slots + self.look_ahead - self.occupied, 0)
        return min(room, 1) if self.on_trial else room


def candidate(client: Client, look_ahead: int) -> Candidate:
    """Return what placement has to know of a client."""
    return Candidate(
        client.name,
        client.occupied,
        # A client that pushes events reports its slots in the first one: it has none before.
        0 if client.slots is None and client.has_events else client.slots,
        look_ahead,
        client.cpu,
        on_trial=client.failures > 0,
        turn=client.turn,
    )


def place(candidates: Sequence[Candidate], limit: int) -> list[str]:
    """Return the names of the clients that the next ``limit`` jobs go to, in order.

    Each job goes to the client with the most free slots, then the lowest CPU load, then the one
    that was sent a job longest ago. The result is shorter than ``limit`` if the candidates have no
    room for more.
    """
    heap = [(*_preference(each), number) for number, each in enumerate(candidates) if each.room]
    heapq.heapify(heap)
    left = [each.room for each in candidates]
    turn = max((each.turn for each in candidates), default=0)
    placed: list[str] = []
    while heap and len(placed) < limit:
        beyond_slots, load, _, number = heap[0]
        placed.append(candidates[number].name)
        left[number] -= 1
        turn += 1
        if left[number] > 0:
            heapq.heapreplace(heap, (beyond_slots + 1, load, turn, number))
        else:
            heapq.heappop(heap)
    return placed


def _preference(each: Candidate) -> tuple[int, float, int]:
    # A client that reports no slots counts as having none beyond its jobs: clients that report free
    # slots come first, and of the silent ones that with the fewest jobs.
    return each.occupied - (each.slots or 0), each.load, each.turn
