"""Policies that order the jobs of all users together: by arrival, or by priority with ageing.

The jobs of one user keep their order: higher priorities first, then arrival. Limits hold for each
user as with fair share, so a user at the limit is passed over.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from job_orchestrator.server.scheduling.base import NO_USERS, Admit, Limits
from job_orchestrator.server.scheduling.choice import choose
from job_orchestrator.server.store.queue import QueuedJob, WaitingUser


class FirstCome:
    """Scheduling policy that starts the jobs of all users in the order of their arrival."""

    in_order = True

    def choose(
        self,
        limits: Limits,
        active: int,
        slots: int,
        waiting: Sequence[WaitingUser],
        everywhere: Mapping[int, int] = NO_USERS,
        admit: Admit | None = None,
    ) -> list[int]:
        """See ``SchedulingPolicy.choose``."""

        def rank(user: WaitingUser, chosen: int, served: int) -> tuple[float, ...]:
            return (float(_next(user, chosen).id),)

        return choose(limits, active, slots, waiting, rank, everywhere, admit)


@dataclass(frozen=True)
class Priority:
    """Scheduling policy that starts the jobs of all users by priority.

    A job that has waited for ``ageing_s`` is as urgent as one of the next priority that arrives
    now. So no job waits for ever. Without ageing (0), priorities are strict.
    """

    ageing_s: float
    in_order = True

    def choose(
        self,
        limits: Limits,
        active: int,
        slots: int,
        waiting: Sequence[WaitingUser],
        everywhere: Mapping[int, int] = NO_USERS,
        admit: Admit | None = None,
    ) -> list[int]:
        """See ``SchedulingPolicy.choose``."""

        def rank(user: WaitingUser, chosen: int, served: int) -> tuple[float, ...]:
            job = _next(user, chosen)
            if self.ageing_s <= 0:
                return -job.priority, job.id
            # All jobs age at the same pace: the order does not depend on the present time.
            return job.created_at - job.priority * self.ageing_s, job.id

        return choose(limits, active, slots, waiting, rank, everywhere, admit)


def _next(user: WaitingUser, chosen: int) -> QueuedJob:
    """Return the job of a user that starts after ``chosen`` others."""
    if chosen < len(user.next):
        return user.next[chosen]
    return QueuedJob(user.head, 0, 0.0)
