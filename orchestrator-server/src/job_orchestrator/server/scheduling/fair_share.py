"""Fair share: the next slot goes to the waiting user with the fewest active jobs.

Ties go to the user who was served longest ago. So no user is starved: each start of another user's
job moves a waiting user up in the order.
"""

import heapq
from collections.abc import Sequence

from job_orchestrator.server.scheduling.base import Limits
from job_orchestrator.server.store.queue import WaitingUser


class FairShare:
    """Scheduling policy that evens out the number of active jobs between users."""

    def choose(
        self, limits: Limits, active: int, slots: int, waiting: Sequence[WaitingUser]
    ) -> list[int]:
        """See ``SchedulingPolicy.choose``."""
        free = min(limits.per_service - active, slots)
        heap = [
            (user.active, user.served, user.user_id, user.queued)
            for user in waiting
            if user.queued > 0 and user.active < limits.per_user
        ]
        heapq.heapify(heap)
        served = max((entry[1] for entry in heap), default=0)
        chosen: list[int] = []
        while heap and len(chosen) < free:
            user_active, _, user_id, queued = heapq.heappop(heap)
            chosen.append(user_id)
            served += 1
            if queued > 1 and user_active + 1 < limits.per_user:
                heapq.heappush(heap, (user_active + 1, served, user_id, queued - 1))
        return chosen
