"""Brings states and results back from the clients.

Three things make it look at a job: the client pushed a change (at once), the client can only be
polled (every pass), or nothing was heard of the job for a while (reconciliation, slow). Whatever
the reason, the look is the same: the fetcher's.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping

from job_orchestrator.common.logs.context import logging_about
from job_orchestrator.common.messages import Payload, PayloadEvent
from job_orchestrator.common.runtime.loops import TaskOwner
from job_orchestrator.common.status import (
    DISPATCHED_JOB,
    FINAL_PAYLOAD,
    PayloadStatus,
)
from job_orchestrator.server.clients.registry import Client, ClientPool
from job_orchestrator.server.dispatch.about import about_attempt
from job_orchestrator.server.dispatch.early_events import EarlyEvents
from job_orchestrator.server.dispatch.fetcher import Fetcher
from job_orchestrator.server.files.base import JobFiles
from job_orchestrator.server.model import Job, Service
from job_orchestrator.server.store.sqlite.jobs import JobStore
from job_orchestrator.server.store.sqlite.schema import DatabaseError

logger = logging.getLogger(__name__)

RECONCILE_S = 60.0
"""A job of which nothing was heard for so long is asked for, even if its client pushes."""

RECONCILE_PACE_S = 2.0
"""Between two jobs of a client that pushes: reconciliation is cheap however many jobs run."""

RECENT_S = 3600.0
"""How long after it was terminated a job's output is still looked for at a start."""

RETRY_S = 5.0
MAX_LOOKS = 32
"""Requests for results at once to one client."""


class Getter:
    """The getter's pass, and what the event streams tell it. A listener of the store.

    ``clock`` gives seconds that only grow, ``fetched`` is called with the seconds that it took to
    fetch results. A look is a task that waits for one of its client's turns, so that a client that
    hangs delays no other.
    """

    def __init__(
        self,
        store: JobStore,
        files: JobFiles,
        pool: ClientPool,
        services: Mapping[str, Service],
        *,
        lost_after_s: float,
        max_result_bytes: int = 0,
        clock: Callable[[], float] = time.monotonic,
        fetched: Callable[[float], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._pool = pool
        self._lost_after_s = lost_after_s
        self._clock = clock
        self._fetcher = Fetcher(
            store,
            files,
            pool,
            services,
            self._retry,
            lost_after_s=lost_after_s,
            max_result_bytes=max_result_bytes,
            clock=clock,
            fetched=fetched,
        )
        self._looks = TaskOwner(
            "getter", limit=sum(service.max_runs for service in services.values())
        )
        self._turns = {client.url: asyncio.Semaphore(MAX_LOOKS) for client in pool}
        # Jobs being looked at; True: something happened meanwhile, look once more.
        self._looking: dict[int, bool] = {}
        # When a job is asked for again although nothing was pushed: after a failure, or to be sure.
        self._retry_at: dict[int, float] = {}
        self._reconcile_at: dict[int, float] = {}
        self._next_reconcile: dict[str, float] = {}
        self._early = EarlyEvents()
        self._born = clock()

    async def run_pass(self) -> None:
        """Look at the jobs of clients that can only be polled, and at those that are due."""
        for client in self._pool:
            self._look_at(client, self._due_at(client))
        if self._clock() - self._born >= self._lost_after_s:
            await self._lose_silent_ones()

    async def recover(self) -> None:
        """Take up what an earlier life left, beside the jobs of clients that will be asked anyway.

        Jobs of a client that is not configured any more wait for it as for a silent one. The output
        of a job that was just terminated may not be here yet.
        """
        for url in await self._store.dispatched_to():
            if self._pool.get(url) is None:
                await self._fetcher.client_lost(url, f"{url} is no longer configured")
        for job in await self._store.killed_without_output(RECENT_S):
            self.follow_up(job)

    async def _lose_silent_ones(self) -> None:
        """Give up jobs whose client was silent for too long; never before it could be heard: while
        the server was down, it was the server that did not listen."""
        for job in await self._store.unknown_for(self._lost_after_s):
            why = f"{job.message} (for more than {self._lost_after_s:g} s)"
            if (silent := self._pool.get(job.client)) is not None:
                self._pool.failed(silent, why)
            await self._fetcher.lose(job, why, may_still_run=True)

    def reconcile(self, client: Client) -> None:
        """Look at every job of a client: it has just become reachable, events may be missed."""
        self._look_at(client, client.jobs)

    def track(self, job: Job) -> None:
        """Forget what was planned for a job that no client has any more."""
        if job.status not in DISPATCHED_JOB:
            self._fetcher.forget(job)
            self._retry_at.pop(job.id, None)
            self._reconcile_at.pop(job.id, None)

    def submitted(self, job: Job, payload: Payload) -> None:
        """A client has accepted a job as ``payload``.

        Its first events may have come before this; and a submit that was repeated after a crash is
        answered with a payload that may have ended long ago, of which no event comes any more.
        """
        client = self._pool.get(job.client)
        if client is None:
            return
        self._reconcile_at[job.id] = self._clock() + RECONCILE_S
        status = self._early.take(client.url, payload.id) or payload.status
        if job.kill_requested or status not in (PayloadStatus.PREPARED, PayloadStatus.RUNNING):
            self.follow_up(job)
        elif status is PayloadStatus.RUNNING:
            self._fetcher.note_that_it_runs(job)

    def on_event(self, client: Client, event: PayloadEvent) -> None:
        """A client tells that a payload has got a new state."""
        job = client.payloads.get(event.id)
        if job is None:
            self._early.keep(client.url, event.id, event.status)
        elif event.status in FINAL_PAYLOAD or event.status is PayloadStatus.CLEANED:
            self.follow_up(job)
        elif event.status is PayloadStatus.RUNNING:
            self._fetcher.note_that_it_runs(job)

    def follow_up(self, job: Job) -> None:
        """Look at a job now; if that is being done already, once more afterwards."""
        client = self._pool.get(job.client)
        if client is None:
            return
        if job.id in self._looking:
            self._looking[job.id] = True
        else:
            self._looking[job.id] = False
            self._retry_at.pop(job.id, None)
            self._reconcile_at[job.id] = self._clock() + RECONCILE_S
            self._looks.spawn(self._follow(job, client), f"job {job.id}")

    async def close(self) -> None:
        """Cancel all looks; results that are half here are fetched again by the next life."""
        await self._looks.close()
        await self._fetcher.close()

    async def client_lost(self, client: Client, problem: str) -> None:
        """A client can't be reached: its jobs are Unknown, not gone."""
        await self._fetcher.client_lost(client.url, problem)

    def _due_at(self, client: Client) -> list[int]:
        """The jobs of a client that are to be looked at now."""
        now = self._clock()
        if not client.pushes:
            return [i for i in client.jobs if self._retry_at.get(i, 0.0) <= now]
        due = [i for i, at in self._retry_at.items() if at <= now and i in client.jobs]
        if client.jobs and now >= self._next_reconcile.get(client.url, 0.0):
            oldest = min(client.jobs, key=lambda i: self._reconcile_at.get(i, 0.0))
            if self._reconcile_at.get(oldest, 0.0) <= now:
                self._next_reconcile[client.url] = now + RECONCILE_PACE_S
                due.append(oldest)
        return due

    def _look_at(self, client: Client, job_ids: Iterable[int]) -> None:
        for job_id in set(job_ids) - self._looking.keys():
            job = client.jobs[job_id]
            if job.status in DISPATCHED_JOB:
                self.follow_up(job)

    async def _follow(self, job: Job, client: Client) -> None:
        """Look at a job as long as something happens to it. What ``client`` says is never taken
        for news of a run at another one, where the job may have been sent meanwhile.
        """
        now = job
        try:
            async with self._turns[client.url]:
                with logging_about(**about_attempt(job)):
                    again = True
                    while again:
                        self._looking[job.id] = False
                        now = await self._store.get(job.id)
                        if now.client != client.url:
                            break
                        await self._fetcher.look(now, client)
                        again = self._looking[job.id]
        except (OSError, DatabaseError) as error:
            # Our own disk or database: the job is what it is, and looked at again.
            self._retry(job, error)
        finally:
            del self._looking[job.id]
        if now.client != client.url and now.status in DISPATCHED_JOB:
            self.follow_up(now)

    def _retry(self, job: Job, error: Exception) -> None:
        if job.status in DISPATCHED_JOB:
            self._retry_at[job.id] = self._clock() + RETRY_S
        logger.warning("Job %d: %s; next try in %g s", job.id, error, RETRY_S)
