"""Says in the log who got a slot, and whom a quota holds back."""

import logging
from collections import Counter

from job_orchestrator.server.model import Service
from job_orchestrator.server.store.base import Claim

logger = logging.getLogger(__name__)


class QuotaLog:
    """Logs quota decisions: that a job waits is said once, not at every pass."""

    def __init__(self) -> None:
        self._held: dict[str, dict[int, int]] = {}

    def report(self, service: Service, claim: Claim) -> None:
        """Log what a claim decided."""
        for job in claim.jobs:
            logger.info(
                "User %d slot available, dispatching job %d to service '%s'",
                job.user_id,
                job.id,
                service.name,
            )
        started = Counter(job.user_id for job in claim.jobs)
        claimed = {job.id for job in claim.jobs}
        held: dict[int, int] = {}
        for user in claim.waiting:
            running = user.active + started[user.user_id]
            if running < service.runs_per_user or user.head in claimed:
                continue
            held[user.user_id] = user.head
            if self._held.get(service.name, {}).get(user.user_id) != user.head:
                logger.info(
                    "User %d has %d/%d jobs running for service '%s', job %d remains queued",
                    user.user_id,
                    running,
                    service.runs_per_user,
                    service.name,
                    user.head,
                )
        if claim.waiting:
            self._held[service.name] = held
