"""Rules: which policy and which limits hold for the jobs of each service."""

from collections.abc import Mapping
from dataclasses import dataclass

from job_orchestrator.server.model import Order, Rate, Service
from job_orchestrator.server.scheduling.arrival import FirstCome, Priority
from job_orchestrator.server.scheduling.base import Limits, SchedulingPolicy
from job_orchestrator.server.scheduling.fair_share import FairShare
from job_orchestrator.server.scheduling.look_ahead import RunTime

AGEING_S = 3600.0
"""Waiting time that counts as much as one more priority, where priorities order all jobs."""

UNKNOWN_RUN_S = 1.0
"""Expected run time of a job of a service that has no history."""


def policies(ageing_s: float = AGEING_S) -> Mapping[Order, SchedulingPolicy]:
    """Return the policy for each order."""
    return {
        Order.FAIR: FairShare(),
        Order.FIFO: FirstCome(),
        Order.PRIORITY: Priority(ageing_s),
    }


@dataclass(frozen=True)
class SharedLimits:
    """Limits over all services; 0 and None mean without a limit.

    ``user_total`` and ``total`` limit the active jobs of each user, and of all. ``reserve`` slots
    of each service are not lent. Jobs beyond ``rate`` wait, or with ``refuse`` are not accepted.
    """

    user_total: int = 0
    total: int = 0
    reserve: int = 0
    rate: Rate | None = None
    refuse: bool = False


@dataclass(frozen=True)
class Rules:
    """Policy and limits of each service. ``run_time`` returns the expected run time of its jobs."""

    policies: Mapping[Order, SchedulingPolicy]
    run_time: RunTime
    shared: SharedLimits = SharedLimits()

    def policy(self, service: Service) -> SchedulingPolicy:
        """Return the policy that orders the jobs of a service."""
        return self.policies[service.order]

    def limits(self, service: Service) -> Limits:
        """Return the limits of a service."""
        return Limits(
            service.runs_per_user,
            service.max_runs,
            burst=service.burst,
            reserve=self.shared.reserve,
            user_total=self.shared.user_total,
            total=self.shared.total,
            run_s=self.run_time(service.name) or UNKNOWN_RUN_S,
        )

    def user_total(self, user_id: int) -> int | None:
        """Return how many active jobs in all services a user may have; None: any number."""
        return self.shared.user_total or None

    def start_rate(self, user_id: int) -> Rate | None:
        """Return the rate at which jobs of a user may start; None: at any rate."""
        return None if self.shared.refuse else self.rate(user_id)

    def rate(self, user_id: int) -> Rate | None:
        """Return how many jobs of a user are allowed in an hour; None: any number."""
        return self.shared.rate

    @property
    def limit_starts(self) -> bool:
        """True if jobs of some users may wait because of a rate."""
        return self.shared.rate is not None and not self.shared.refuse
