"""Tells callback URLs that their jobs have ended, again and again until they take it."""

import logging
import random
from collections.abc import Callable

from job_orchestrator.common.runtime.loops import Loop, TaskOwner
from job_orchestrator.common.status import FINAL_JOB
from job_orchestrator.server.callbacks.delivery import (
    CallbackFailed,
    CallbackUnwanted,
    Message,
    WebhookCaller,
)
from job_orchestrator.server.callbacks.rules import CallbackRefused, host_of
from job_orchestrator.server.model import Job
from job_orchestrator.server.store.base import DueCallback, Outbox

logger = logging.getLogger(__name__)

RETRY_S = (5.0, 30.0, 120.0, 600.0, 1800.0, 2 * 3600.0, 6 * 3600.0, 12 * 3600.0)
"""Pauses after the first, second, … failure; after the last one more it is given up."""

JITTER = 0.2
"""Part of a pause that is left to chance, so that what failed together does not come together."""

INTERVAL_S = 2.0
MAX_DUE = 500
"""Looked at in a pass: more than may be called, so that one host's don't hide those of others."""

MAX_CALLS = 16
MAX_CALLS_PER_HOST = 4
"""At once, so that one receiver that hangs does not delay what is for others."""


class Notifier:
    """The notifier's pass. ``body`` is what is told of a job.

    A call has its own task and connection, and its end is a row until it was told: neither the
    sender nor the getter ever waits for it, and a crash repeats it (with the same id).
    """

    def __init__(self, outbox: Outbox, caller: WebhookCaller, body: Callable[[Job], bytes]) -> None:
        self._outbox = outbox
        self._caller = caller
        self._body = body
        self._calls = TaskOwner("notifier", limit=MAX_CALLS)
        self._calling: dict[int, str] = {}
        self.loop = Loop("notifier", self.run_pass, interval_s=INTERVAL_S)

    def note(self, job: Job) -> None:
        """A job has changed: if it has ended, its callback is due."""
        if job.callback_url is not None and job.status in FINAL_JOB:
            self.loop.wake()

    async def run_pass(self) -> None:
        """Begin to tell what is due."""
        if not self._calls.free:
            return
        for due in await self._outbox.due(MAX_DUE):
            host = _host(due.job)
            busy = list(self._calling.values()).count(host) >= MAX_CALLS_PER_HOST
            if due.job.id in self._calling or busy or not self._calls.free:
                continue
            self._calling[due.job.id] = host
            self._calls.spawn(self._call(due), f"job {due.job.id}")

    async def close(self) -> None:
        """Cancel the calls; the next life repeats them."""
        await self._calls.close()

    async def idle(self) -> None:
        """Wait until no call is under way."""
        await self._calls.drain(60.0)

    async def _call(self, due: DueCallback) -> None:
        try:
            await self._tell(due)
        finally:
            del self._calling[due.job.id]
        # Not after an error of ours: it would be met again at once.
        self.loop.wake()

    async def _tell(self, due: DueCallback) -> None:
        job = due.job
        try:
            message = Message(f"job_{job.uuid}", self._body(job))
            await self._caller.call(job.callback_url or "", message)
        except CallbackUnwanted as unwanted:
            logger.warning("Job %d: its callback is given up: %s", job.id, unwanted)
            await self._outbox.done(job.id)
        except CallbackFailed as failed:
            await self._failed(due, str(failed))
        else:
            logger.info("Job %d: its callback was told that it is %s", job.id, job.status)
            await self._outbox.done(job.id)

    async def _failed(self, due: DueCallback, why: str) -> None:
        if due.attempts >= len(RETRY_S):
            logger.warning("Job %d: its callback is given up: %s", due.job.id, why)
            await self._outbox.done(due.job.id)
            return
        pause_s = RETRY_S[due.attempts] * (1 + JITTER * random.random())  # noqa: S311
        logger.info("Job %d: its callback failed, next try in %.0f s: %s", due.job.id, pause_s, why)
        await self._outbox.later(due.job.id, pause_s)


def _host(job: Job) -> str:
    try:
        return host_of(job.callback_url or "")
    except CallbackRefused:
        return ""  # an earlier version may have taken it; it is given up when it is called
