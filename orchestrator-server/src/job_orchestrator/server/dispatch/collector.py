"""Collector: decides when the jobs of clients are fetched.

A job is fetched when its client pushes a change (immediately), in every pass if the client can only
be polled, and from time to time if nothing was heard of it (reconciliation). The reason makes no
difference to the fetch.
"""

import asyncio
import logging
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping

from job_orchestrator.common.logs.context import logging_about
from job_orchestrator.common.messages import Payload, PayloadEvent
from job_orchestrator.common.runtime.loops import Loop, TaskOwner
from job_orchestrator.common.status import DISPATCHED_JOB, PayloadStatus
from job_orchestrator.server.clients.registry import Client, ClientRegistry
from job_orchestrator.server.dispatch.fetch_schedule import FetchSchedule
from job_orchestrator.server.dispatch.fetcher import Fetcher
from job_orchestrator.server.dispatch.outcome import (
    ClientNotConfigured,
    ClientSilent,
    FailedAttempts,
)
from job_orchestrator.server.jobs.reasons import reason_for
from job_orchestrator.server.model import Job, Service
from job_orchestrator.server.store.base import JobStore, StoreError
from job_orchestrator.server.tuning import Tuning

logger = logging.getLogger(__name__)

RECENT_S = 3600.0
"""After a start, missing output is fetched of jobs that were terminated within so many seconds."""

MAX_EARLY_EVENTS = 10_000
"""Early events that are kept of one client, so that a hostile one can't fill the memory."""


class Collector:
    """Starts fetches, and receives the events of clients and of jobs that lead to them.

    A fetch is a task that waits for one of its client's permits, so a client that hangs delays no
    other. Jobs of a client that was silent for ``lost_after_s`` are given up. ``clock`` returns
    monotonic seconds.
    """

    def __init__(
        self,
        store: JobStore,
        registry: ClientRegistry,
        fetcher: Fetcher,
        schedule: FetchSchedule,
        failed_attempts: FailedAttempts,
        services: Mapping[str, Service],
        tuning: Tuning,
        *,
        lost_after_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._registry = registry
        self._fetcher = fetcher
        self._schedule = schedule
        self._failed_attempts = failed_attempts
        self._lost_after_s = lost_after_s
        self._clock = clock
        self._fetches = TaskOwner(
            "collector", limit=sum(service.max_runs for service in services.values())
        )
        self._permits = {
            client.name: asyncio.Semaphore(tuning.max_fetches_per_client) for client in registry
        }
        # Jobs that are being fetched. True: something has happened since, so fetch once more.
        self._fetching: dict[int, bool] = {}
        self._early_events = EarlyEvents()
        self._started_at = clock()
        self.loop = Loop("collector", self.run_pass, interval_s=tuning.collect_interval_s)

    async def resume(self) -> None:
        """Take over jobs of a previous run of the server that no other path leads to.

        Jobs of a client that is not configured any more become Unknown, as those of a silent one.
        Output of a job that was terminated just before the stop may be missing. The jobs of all
        other clients are fetched when their clients are connected.
        """
        for name in await self._store.dispatched_to():
            if self._registry.get(name) is None:
                await self._fetcher.mark_unknown(name, str(ClientNotConfigured(name)))
        for job in await self._store.killed_without_output(RECENT_S):
            self.fetch(job)

    async def run_pass(self) -> None:
        """Fetch the jobs that are due, and give up those of clients that were silent too long."""
        for client in self._registry:
            self._fetch_all(client, self._schedule.due(client))
        # While the server was down, it was the server that did not listen: the time counts only
        # from its start.
        if self._clock() - self._started_at >= self._lost_after_s:
            await self._give_up_silent()

    async def close(self) -> None:
        """Cancel all fetches; unfinished ones are repeated after the next start."""
        await self._fetches.close()
        await self._fetcher.close()

    def on_job_changed(self, job: Job) -> None:
        """Drop what was planned for a job that no client has any more."""
        if job.status not in DISPATCHED_JOB:
            self._fetcher.forget(job)
            self._schedule.forget(job)

    def on_submitted(self, job: Job, payload: Payload) -> None:
        """Follow a job that its client has accepted as ``payload``.

        The payload's first events may have arrived before. A submit that was repeated after a crash
        may be answered with a payload that ended long ago, of which no event comes any more.
        """
        client = self._registry.get(job.client)
        if client is None:
            return
        self._schedule.postpone_reconcile(job)
        status = self._early_events.pop(client, payload.id) or payload.status
        if job.kill_requested or status not in (PayloadStatus.PREPARED, PayloadStatus.RUNNING):
            self.fetch(job)
        elif status is PayloadStatus.RUNNING:
            self._fetcher.record_running(job, payload.message or "")

    def on_event(self, client: Client, event: PayloadEvent) -> None:
        """React to a client's event: a payload has a new state."""
        job = client.payloads.get(event.id)
        if job is None:
            self._early_events.add(client, event)
        elif event.status.has_ended:
            self.fetch(job)
        elif event.status is PayloadStatus.RUNNING:
            self._fetcher.record_running(job, event.message)
            if event.packing:
                self._registry.on_packing(client, job)

    def on_connected(self, client: Client) -> None:
        """Fetch all jobs of a client that has become reachable: events may have been missed."""
        self._fetch_all(client, client.jobs)

    async def on_unreachable(self, client: Client, problem: str) -> None:
        """Make the jobs of a client that can't be reached Unknown."""
        await self._fetcher.mark_unknown(client.name, problem)

    def fetch(self, job: Job) -> None:
        """Fetch a job now, or once more if it is being fetched."""
        client = self._registry.get(job.client)
        if client is None:
            return
        if job.id in self._fetching:
            self._fetching[job.id] = True
        else:
            self._fetching[job.id] = False
            self._schedule.begin(job)
            self._fetches.spawn(self._fetch(job, client), f"job {job.id}")

    def _fetch_all(self, client: Client, job_ids: Iterable[int]) -> None:
        for job_id in set(job_ids) - self._fetching.keys():
            job = client.jobs[job_id]
            if job.status in DISPATCHED_JOB:
                self.fetch(job)

    async def _fetch(self, job: Job, client: Client) -> None:
        """Fetch a job for as long as something happens to it.

        Only while ``client`` has it: what this client says of an earlier attempt must not be
        applied to the next one, which may run elsewhere by now.
        """
        now = job
        try:
            async with self._permits[client.name]:
                with logging_about(**job.log_fields()):
                    again = True
                    while again:
                        self._fetching[job.id] = False
                        now = await self._store.get(job.id)
                        if now.client != client.name:
                            break
                        await self._fetcher.fetch(now, client)
                        again = self._fetching[job.id]
        except (OSError, StoreError) as error:
            # The server's own disk or database: the job keeps its state and is fetched again.
            self._schedule.retry(job, error)
        finally:
            del self._fetching[job.id]
        if now.client != client.name and now.status in DISPATCHED_JOB:
            self.fetch(now)

    async def _give_up_silent(self) -> None:
        for job in await self._store.unknown_for(self._lost_after_s):
            problem = reason_for(job.message, details=True)
            silent = ClientSilent(f"{problem} (for more than {self._lost_after_s:g} s)")
            await self._failed_attempts.give_up_dispatched(job, silent)


class EarlyEvents:
    """The last state of payloads that no job refers to yet, by client and payload id.

    A short payload may have ended before the answer to its submit is recorded here.
    """

    def __init__(self) -> None:
        self._states: defaultdict[str, OrderedDict[int, PayloadStatus]] = defaultdict(OrderedDict)

    def add(self, client: Client, event: PayloadEvent) -> None:
        """Record the reported state. Above ``MAX_EARLY_EVENTS`` the oldest one is dropped."""
        states = self._states[client.name]
        states[event.id] = event.status
        while len(states) > MAX_EARLY_EVENTS:
            states.popitem(last=False)

    def pop(self, client: Client, payload_id: int) -> PayloadStatus | None:
        """Remove and return the state of a payload; None if no event came."""
        return self._states[client.name].pop(payload_id, None)
