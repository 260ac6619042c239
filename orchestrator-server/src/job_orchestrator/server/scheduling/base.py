"""The contract of scheduling policies: which users' jobs are started next."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from job_orchestrator.server.store.queue import WaitingUser


@dataclass(frozen=True)
class Limits:
    """Limits of concurrently active jobs: of each user of a service, and of all users together."""

    per_user: int
    per_service: int


class SchedulingPolicy(Protocol):
    """Decides which users' jobs of one service are started next.

    A policy is a pure function: it runs inside the transaction that claims the jobs, so it must be
    quick, and equal arguments must give equal results. Every policy keeps the limits, and leaves no
    slot idle while a user with queued jobs is below the limits.
    """

    def choose(
        self, limits: Limits, active: int, slots: int, waiting: Sequence[WaitingUser]
    ) -> Sequence[int]:
        """Return the user of each job to start, in order; a user appears once for every job.

        ``active`` counts all active jobs of the service, ``slots`` those that the clients can take
        now.
        """
