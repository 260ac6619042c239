"""Committed changes: a cache of the jobs that changed last, and the subscribers of the store."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from job_orchestrator.server.model import Job
from job_orchestrator.server.store.base import Subscriber

MAX_RECENT = 1000
"""Jobs in the cache. Most requests of portals concern these, and need no query."""


@dataclass(frozen=True)
class _Subscription:
    subscriber: Subscriber
    status_changes_only: bool


class RecentChanges:
    """Cache of recently changed jobs, and notification of subscribers.

    The cache cannot be stale: this process is the only writer, and ``publish`` is called for every
    commit, in commit order.
    """

    def __init__(self) -> None:
        self._jobs: OrderedDict[int, Job] = OrderedDict()
        self._subscriptions: list[_Subscription] = []

    def subscribe(self, subscriber: Subscriber, *, status_changes_only: bool) -> None:
        """Add a subscriber, which is called after those that are already there."""
        self._subscriptions.append(_Subscription(subscriber, status_changes_only))

    def get(self, job_id: int) -> Job | None:
        """Return a job as it is now; None if it did not change recently."""
        return self._jobs.get(job_id)

    def publish(self, jobs: Sequence[Job], *, status_changed: bool) -> None:
        """Cache jobs as they are after a commit, then notify the subscribers of each."""
        for job in jobs:
            self._jobs[job.id] = job
            self._jobs.move_to_end(job.id)
            if len(self._jobs) > MAX_RECENT:
                self._jobs.popitem(last=False)
            for subscription in self._subscriptions:
                if status_changed or not subscription.status_changes_only:
                    subscription.subscriber(job)
