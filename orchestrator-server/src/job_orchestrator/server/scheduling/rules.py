"""Rules: which policy and which limits hold for the jobs of each service."""

from collections.abc import Mapping
from dataclasses import dataclass

from job_orchestrator.server.model import Order, Service
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
class Rules:
    """Policy and limits of each service. ``run_time`` returns the expected run time of its jobs."""

    policies: Mapping[Order, SchedulingPolicy]
    run_time: RunTime

    def policy(self, service: Service) -> SchedulingPolicy:
        """Return the policy that orders the jobs of a service."""
        return self.policies[service.order]

    def limits(self, service: Service) -> Limits:
        """Return the limits of a service."""
        run_s = self.run_time(service.name) or UNKNOWN_RUN_S
        return Limits(service.runs_per_user, service.max_runs, run_s=run_s)
