"""Delivers callbacks from the outbox, and repeats a delivery until the receiver accepts it."""

import logging
from collections.abc import Callable

from job_orchestrator.common.runtime.backoff import Backoff
from job_orchestrator.common.runtime.loops import Loop, TaskOwner
from job_orchestrator.common.status import FINAL_JOB
from job_orchestrator.server.callbacks.delivery import (
    CallbackFailed,
    CallbackRejected,
    Message,
    WebhookSender,
)
from job_orchestrator.server.callbacks.rules import CallbackRefused, host_of
from job_orchestrator.server.model import Job
from job_orchestrator.server.store.base import DueCallback, Outbox

logger = logging.getLogger(__name__)

BACKOFF = Backoff(
    (5.0, 30.0, 120.0, 600.0, 1800.0, 2 * 3600.0, 6 * 3600.0, 12 * 3600.0), jitter=0.2
)
"""Delays between deliveries. When the last delay has passed too, there is one more delivery."""

INTERVAL_S = 2.0
MAX_DUE = 500
"""Callbacks that are read from the outbox in a pass. That is more than may be delivered
concurrently, so that the callbacks of one host do not hide those of other hosts."""

MAX_DELIVERIES = 16
MAX_DELIVERIES_PER_HOST = 4
"""Concurrent deliveries, so that a receiver that hangs does not delay callbacks to others."""


class Notifier:
    """Worker of the callback outbox. ``body`` returns the body of the callback of a job.

    Each delivery has its own task and connection, so that neither dispatch nor collection of
    results ever waits for it. A callback stays in the outbox until it is delivered or given up; a
    crash therefore repeats the delivery, with the same message id.
    """

    def __init__(
        self,
        outbox: Outbox,
        sender: WebhookSender,
        body: Callable[[Job], bytes],
        *,
        backoff: Backoff = BACKOFF,
    ) -> None:
        self._outbox = outbox
        self._sender = sender
        self._body = body
        self._backoff = backoff
        self._deliveries = TaskOwner("notifier", limit=MAX_DELIVERIES)
        self._hosts: dict[int, str] = {}
        """Host of each delivery in progress, by job."""
        self.loop = Loop("notifier", self.run_pass, interval_s=INTERVAL_S)

    def on_job_changed(self, job: Job) -> None:
        """Deliver the callback of a job that has ended soon."""
        if job.callback_url is not None and job.status in FINAL_JOB:
            self.loop.wake()

    async def run_pass(self) -> None:
        """Start the delivery of callbacks that are due."""
        if not self._deliveries.free:
            return
        for due in await self._outbox.due(MAX_DUE):
            host = _host(due.job)
            is_busy = list(self._hosts.values()).count(host) >= MAX_DELIVERIES_PER_HOST
            if due.job.id in self._hosts or is_busy or not self._deliveries.free:
                continue
            self._hosts[due.job.id] = host
            self._deliveries.spawn(self._deliver(due), f"job {due.job.id}")

    async def close(self) -> None:
        """Cancel the deliveries in progress. They are repeated at the next start."""
        await self._deliveries.close()

    async def _deliver(self, due: DueCallback) -> None:
        try:
            await self._try_to_deliver(due)
        finally:
            del self._hosts[due.job.id]
        # Not after an internal error, which the next pass would run into again immediately.
        self.loop.wake()

    async def _try_to_deliver(self, due: DueCallback) -> None:
        job = due.job
        try:
            message = Message(f"job_{job.uuid}", self._body(job))
            await self._sender.send(job.callback_url or "", message)
        except CallbackRejected as rejected:
            await self._give_up(job, str(rejected))
        except CallbackFailed as failed:
            await self._retry_later(due, str(failed))
        else:
            logger.info("Job %d: callback delivered, the job is %s", job.id, job.status)
            await self._outbox.done(job.id)

    async def _retry_later(self, due: DueCallback, reason: str) -> None:
        failures = due.attempts + 1
        if failures > len(self._backoff.delays_s):
            await self._give_up(due.job, reason)
            return
        delay_s = self._backoff.delay_s(failures)
        logger.info("Job %d: callback failed, next try in %.0f s: %s", due.job.id, delay_s, reason)
        await self._outbox.later(due.job.id, delay_s)

    async def _give_up(self, job: Job, reason: str) -> None:
        logger.warning("Job %d: callback given up: %s", job.id, reason)
        await self._outbox.done(job.id)


def _host(job: Job) -> str:
    try:
        return host_of(job.callback_url or "")
    except CallbackRefused:
        return ""  # Stored by a version with other rules; the delivery gives it up.
