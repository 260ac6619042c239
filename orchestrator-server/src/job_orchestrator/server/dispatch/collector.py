"""Collector: decides when the jobs of clients are fetched.

A job is fetched when its client pushes a change (immediately), in every pass if the client can only
be polled, and from time to time if nothing was heard of it (reconciliation). The reason makes no
difference to the fetch.
"""

import asyncio
import logging
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from job_orchestrator.common.logs.context import logging_about
from job_orchestrator.common.messages.payloads import Payload, PayloadEvent
from job_orchestrator.common.runtime.loops import Loop, TaskOwner
from job_orchestrator.common.status import DISPATCHED_JOB, JobStatus, PayloadStatus
from job_orchestrator.server.clients.base import EndedPayload
from job_orchestrator.server.clients.registry import Client, ClientRegistry
from job_orchestrator.server.dispatch.fetch_schedule import FetchSchedule
from job_orchestrator.server.dispatch.fetcher import Fetcher
from job_orchestrator.server.dispatch.outcome import (
    ClientNotConfigured,
    ClientSilent,
    FailedAttempts,
)
from job_orchestrator.server.errors import StoreError
from job_orchestrator.server.jobs.reasons import reason_for
from job_orchestrator.server.model import Job, Service
from job_orchestrator.server.store.base import JobStore
from job_orchestrator.server.tuning import Tuning

logger = logging.getLogger(__name__)

RECENT_S = 3600.0
"""After a start, missing output is fetched of jobs that were terminated within so many seconds."""

NEVER_S = 1e12

MAX_EARLY_EVENTS = 10_000
"""Payloads of one client with early events, so that a hostile one can't fill the memory."""

MAX_EARLY_RESULT_BYTES = 16 << 20
"""Limit of the results in early events."""


class Collector:
    """Starts fetches, and receives the events of clients and of jobs that lead to them.

    A fetch is a task that waits for one of its client's permits, so a client that hangs delays no
    other. Jobs of a client that was silent for ``lost_after_s`` are given up, unless their service
    has another time. ``clock`` returns monotonic seconds.
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
        self._lost_after_of = {
            name: service.lost_after_s
            for name, service in services.items()
            if service.lost_after_s is not None
        }
        self._clock = clock
        self._fetches = TaskOwner(
            "collector", limit=sum(service.max_runs for service in services.values())
        )
        self._permits: defaultdict[str, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(tuning.max_fetches_per_client)
        )
        # Jobs that are being fetched. True: something has happened since, so fetch once more.
        self._fetching: dict[int, bool] = {}
        self._early_events = EarlyEvents()
        # Jobs whose client was connected during their delivery: it may have reported them before.
        self._connected_during_delivery: set[int] = set()
        # Jobs whose client has accepted them, and of which the store does not know that yet, by
        # client and payload id.
        self._accepted: dict[tuple[str, int], Job] = {}
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
            if job.status is not JobStatus.PROCESSING:
                self._connected_during_delivery.discard(job.id)

    @contextmanager
    def accepted(self, job: Job, payload: Payload) -> Iterator[None]:
        """Apply the events of a payload while the store records that ``job`` has it.

        So the end of a short job is written in the transaction of that record. Events may have
        arrived before the answer to the submit.
        """
        client = self._registry.get(job.client)
        if client is None:
            yield
            return
        name = (client.name, payload.id)
        self._accepted[name] = job.with_changes(status=JobStatus.SUBMITTED, dest_id=payload.id)
        for event in self._early_events.pop(client, payload.id):
            self.on_event(client, event)
        try:
            yield
        finally:
            del self._accepted[name]

    def on_submitted(self, job: Job, payload: Payload) -> None:
        """Follow a job that its client has accepted as ``payload``, now that this is recorded.

        A submit that was repeated after a crash may be answered with a payload that ended long ago,
        of which no event comes any more.
        """
        client = self._registry.get(job.client)
        if client is None:
            return
        self._schedule.postpone_reconcile(job)
        for event in self._early_events.pop(client, payload.id):
            self.on_event(client, event)
        missed = job.id in self._connected_during_delivery
        self._connected_during_delivery.discard(job.id)
        if (
            missed
            or job.kill_requested
            or payload.status
            not in (
                PayloadStatus.PREPARED,
                PayloadStatus.RUNNING,
            )
        ):
            self.fetch(job)
        elif payload.status is PayloadStatus.RUNNING:
            self._fetcher.record_running(job, payload.message or "")

    def on_event(self, client: Client, event: PayloadEvent | EndedPayload) -> None:
        """React to a client's event: a payload has a new state."""
        end = event.end if isinstance(event, EndedPayload) else event
        job = client.payloads.get(end.id)
        recorded = job is not None
        job = job or self._accepted.get((client.name, end.id))
        if job is None or (end.status.has_ended and not recorded and end is event):
            # A fetch has to wait until it is recorded which payload the job has.
            self._early_events.add(client, event)
        elif isinstance(event, EndedPayload) and event.key == job.key:
            self._keep_results(job, client, event)
        elif end.status.has_ended:
            self.fetch(job)
        elif end.status is PayloadStatus.RUNNING:
            self._fetcher.record_running(job, end.message, at=end.at or None)
            if end.packing:
                self._registry.on_packing(client, job)

    def on_connected(self, client: Client) -> None:
        """Fetch all jobs of a client that has become reachable: events may have been missed.

        Those that are being delivered are fetched when that is recorded.
        """
        self._fetch_all(client, client.jobs)
        self._connected_during_delivery |= {
            job.id for job in client.jobs.values() if job.status is JobStatus.PROCESSING
        }

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

    def _keep_results(self, job: Job, client: Client, ended: EndedPayload) -> None:
        """Store results that have arrived, unless the job is being fetched at this moment."""
        if job.id in self._fetching:
            self._fetching[job.id] = True
        else:
            self._fetching[job.id] = False
            self._schedule.begin(job)
            self._fetches.spawn(self._keep(job, client, ended), f"job {job.id}")

    async def _keep(self, job: Job, client: Client, ended: EndedPayload) -> None:
        try:
            with logging_about(**job.log_fields()):
                await self._fetcher.keep(job, client, ended)
        except (OSError, StoreError) as error:
            self._schedule.retry(job, error)
        finally:
            again = self._fetching.pop(job.id)
        if again:
            self.fetch(job)

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
        # While the server was down, it was the server that did not listen: the times count only
        # from its start.
        ran_s = self._clock() - self._started_at

        def counted(seconds: float) -> float:
            return seconds if ran_s >= seconds else NEVER_S

        times = {name: counted(seconds) for name, seconds in self._lost_after_of.items()}
        usual_s = counted(self._lost_after_s)
        if min(usual_s, *times.values(), NEVER_S) == NEVER_S:
            return
        for job in await self._store.unknown_for(usual_s, times):
            problem = reason_for(job.message, details=True)
            lost_after_s = times.get(job.service, usual_s)
            silent = ClientSilent(f"{problem} (for more than {lost_after_s:g} s)")
            await self._failed_attempts.give_up_dispatched(job, silent)


class EarlyEvents:
    """Events of payloads that no job refers to yet, by client and payload id.

    A short payload may have ended before the answer to its submit is handled here.
    """

    def __init__(self) -> None:
        self._events: defaultdict[
            str, OrderedDict[int, dict[PayloadStatus, PayloadEvent | EndedPayload]]
        ] = defaultdict(OrderedDict)
        self._result_bytes = 0

    def add(self, client: Client, event: PayloadEvent | EndedPayload) -> None:
        """Record an event. Above ``MAX_EARLY_EVENTS`` the payload of the oldest one is dropped.

        Results above ``MAX_EARLY_RESULT_BYTES`` are not kept; they are fetched later.
        """
        if isinstance(event, EndedPayload):
            if self._result_bytes + len(event.results) > MAX_EARLY_RESULT_BYTES:
                event = event.end
            else:
                self._result_bytes += len(event.results)
        end = event.end if isinstance(event, EndedPayload) else event
        events = self._events[client.name]
        of_payload = events.setdefault(end.id, {})
        self._release(of_payload.get(end.status))
        of_payload[end.status] = event
        while len(events) > MAX_EARLY_EVENTS:
            for dropped in events.popitem(last=False)[1].values():
                self._release(dropped)

    def pop(self, client: Client, payload_id: int) -> Sequence[PayloadEvent | EndedPayload]:
        """Remove and return the events of a payload, in the order of their arrival."""
        found = list(self._events[client.name].pop(payload_id, {}).values())
        for event in found:
            self._release(event)
        return found

    def _release(self, event: PayloadEvent | EndedPayload | None) -> None:
        if isinstance(event, EndedPayload):
            self._result_bytes -= len(event.results)
