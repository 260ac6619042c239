"""Who may run next: a pure decision on counts and limits.

Quotas are limits on active jobs: so many of a user for a service, so many of a service. Within
them the next slot goes to the waiting user with the fewest active jobs; ties go to the one who was
served longest ago. So no slot stays idle while somebody may use it, and nobody is starved: each
service to another user moves oneself up in the order.
"""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """How many jobs may be active at once, for each user of a service and for all of them."""

    per_user: int
    per_service: int


@dataclass(frozen=True)
class WaitingUser:
    """A user with queued jobs of one service.

    ``queued`` counts jobs that may be claimed now (it may be capped at the free slots), ``served``
    is the number of the last claim for this user (0: never): smaller means longer ago.
    """

    user_id: int
    queued: int
    active: int
    served: int


def choose(limits: Limits, active: int, slots: int, waiting: Iterable[WaitingUser]) -> list[int]:
    """Return the user of each job to start, in order; a user appears once for every job.

    ``active`` counts all active jobs of the service, ``slots`` how many the clients can take now.
    """
    free = min(limits.per_service - active, slots)
    heap = [
        (user.active, user.served, user.user_id, user.queued)
        for user in waiting
        if user.queued > 0 and user.active < limits.per_user
    ]
    heapq.heapify(heap)
    turn = max((entry[1] for entry in heap), default=0)
    chosen: list[int] = []
    while heap and len(chosen) < free:
        user_active, _, user_id, queued = heapq.heappop(heap)
        chosen.append(user_id)
        turn += 1
        if queued > 1 and user_active + 1 < limits.per_user:
            heapq.heappush(heap, (user_active + 1, turn, user_id, queued - 1))
    return chosen
