"""Rules: which policy and which limits hold for the jobs of each service."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from job_orchestrator.server.model import MAX_PRIORITY, Order, Rate, Service
from job_orchestrator.server.scheduling.arrival import FirstCome, Priority
from job_orchestrator.server.scheduling.base import AS_SET, Limits, SchedulingPolicy, UserTerms
from job_orchestrator.server.scheduling.fair_share import FairShare
from job_orchestrator.server.scheduling.look_ahead import RunTime
from job_orchestrator.server.store.queue import Pauses

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
    ``max_priority`` is the highest one that users may ask for.
    """

    user_total: int = 0
    total: int = 0
    reserve: int = 0
    rate: Rate | None = None
    refuse: bool = False
    max_priority: int = MAX_PRIORITY


NO_SHARED_LIMITS = SharedLimits()


@dataclass(frozen=True)
class Terms:
    """Terms of single users, and the limits of groups over all services."""

    users: Mapping[int, UserTerms] = field(default_factory=dict)
    groups: Mapping[str, int] = field(default_factory=dict)


class Rules:
    """Policy and limits of each service.

    ``run_time`` returns the expected run time of its jobs. ``terms`` and ``pauses`` may be replaced
    at any time: the next decision is made by the new ones.
    """

    def __init__(
        self,
        policies: Mapping[Order, SchedulingPolicy],
        run_time: RunTime,
        shared: SharedLimits = NO_SHARED_LIMITS,
    ) -> None:
        self.run_time = run_time
        self.shared = shared
        self.terms = Terms()
        self.pauses = Pauses()
        self._policies = policies

    def policy(self, service: Service) -> SchedulingPolicy:
        """Return the policy that orders the jobs of a service."""
        return self._policies[service.order]

    def limits(self, service: Service) -> Limits:
        """Return the limits of a service."""
        return Limits(
            service.runs_per_user,
            service.max_runs,
            burst=service.burst,
            reserve=self.shared.reserve,
            user_total=self.shared.user_total,
            total=self.shared.total,
            users=self.terms.users,
            groups=self.terms.groups,
            paused=self.pauses.users,
            run_s=self.run_time(service.name) or UNKNOWN_RUN_S,
        )

    def user_terms(self, user_id: int) -> UserTerms:
        """Return the terms of a user."""
        return self.terms.users.get(user_id, AS_SET)

    def user_total(self, user_id: int) -> int | None:
        """Return how many active jobs in all services a user may have; None: any number."""
        total = self.user_terms(user_id).total
        return (self.shared.user_total if total is None else total) or None

    def max_priority(self, user_id: int) -> int:
        """Return the highest priority that a user may ask for."""
        most = self.user_terms(user_id).max_priority
        return self.shared.max_priority if most is None else most

    def rate(self, user_id: int) -> Rate | None:
        """Return how many jobs of a user are allowed in an hour; None: any number."""
        return self.user_terms(user_id).rate or self.shared.rate

    def start_rate(self, user_id: int) -> Rate | None:
        """Return the rate at which jobs of a user may start; None: at any rate."""
        return None if self.shared.refuse else self.rate(user_id)

    def submit_rate(self, user_id: int) -> Rate | None:
        """Return the rate beyond which jobs of a user are refused; None: none is."""
        return self.rate(user_id) if self.shared.refuse else None

    @property
    def limit_starts(self) -> bool:
        """True if jobs of some users may wait because of a rate."""
        if self.shared.refuse:
            return False
        return self.shared.rate is not None or any(
            terms.rate is not None for terms in self.terms.users.values()
        )
