"""Brings states and results back from the clients.

Three things make it look at a job: the client pushed a change (at once), the client can only be
polled (every pass), or nothing was heard of the job for a while (reconciliation, slow). Whatever
the reason, the look is the same: ``_look``.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping

from orchestrator_common.errors import StorageFull
from orchestrator_common.faults import Point, reach
from orchestrator_common.log_context import logging_about
from orchestrator_common.loop import TaskOwner
from orchestrator_common.models import Payload, PayloadEvent
from orchestrator_common.status import (
    DISPATCHED_JOB,
    FINAL_PAYLOAD,
    JobStatus,
    PayloadStatus,
    TransitionRefused,
)
from orchestrator_common.threads import in_thread
from orchestrator_server.arrival import Arrival
from orchestrator_server.background.about import about_attempt
from orchestrator_server.background.early_events import EarlyEvents
from orchestrator_server.background.payload_ends import ENDED_BADLY, reason_of
from orchestrator_server.client_pool import Client, ClientPool
from orchestrator_server.errors import (
    ClientBusy,
    ClientError,
    ClientFailed,
    ClientUnreachable,
    PayloadLost,
    ResultsTooLarge,
)
from orchestrator_server.files import BrokenArchive, JobFiles
from orchestrator_server.settings import Service
from orchestrator_server.store import DatabaseError, Job, JobStore

logger = logging.getLogger(__name__)

RECONCILE_S = 60.0
"""A job of which nothing was heard for so long is asked for, even if its client pushes."""

RECONCILE_PACE_S = 2.0
"""Between two jobs of a client that pushes: reconciliation is cheap however many jobs run."""

RECENT_S = 3600.0
"""How long after it was terminated a job's output is still looked for at a start."""

RETRY_S = 5.0
OUTPUT_PATIENCE_S = 30.0
MAX_NOTES = 10_000
MAX_LOOKS = 32
"""Requests for results at once to one client."""

NO_FOLDER = "Its folder on the server is gone: there is no place for its results"


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
        self._fetched = fetched
        self._store = store
        self._files = files
        self._pool = pool
        self._services = services
        self._lost_after_s = lost_after_s
        self._max_result_bytes = max_result_bytes
        self._clock = clock
        self._looks = TaskOwner(
            "getter", limit=sum(service.max_runs for service in services.values())
        )
        self._turns = {client.url: asyncio.Semaphore(MAX_LOOKS) for client in pool}
        # Jobs being looked at; True: something happened meanwhile, look once more.
        self._looking: dict[int, bool] = {}
        self._notes = TaskOwner("getter", limit=MAX_NOTES)
        # When a job is asked for again although nothing was pushed: after a failure, or to be sure.
        self._retry_at: dict[int, float] = {}
        self._reconcile_at: dict[int, float] = {}
        self._next_reconcile: dict[str, float] = {}
        self._early = EarlyEvents()
        self._born = clock()
        # Since when the output of an ended payload can't be had.
        self._without_output_since: dict[int, float] = {}

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
                await self._client_lost(url, f"{url} is no longer configured")
        for job in await self._store.killed_without_output(RECENT_S):
            self.follow_up(job)

    async def _lose_silent_ones(self) -> None:
        """Give up jobs whose client was silent for too long; never before it could be heard: while
        the server was down, it was the server that did not listen."""
        for job in await self._store.unknown_for(self._lost_after_s):
            why = f"{job.message} (for more than {self._lost_after_s:g} s)"
            if (silent := self._pool.get(job.client_url)) is not None:
                self._pool.failed(silent, why)
            await self._lose(job, why, stray=True)

    def reconcile(self, client: Client) -> None:
        """Look at every job of a client: it has just become reachable, events may be missed."""
        self._look_at(client, client.jobs)

    def track(self, job: Job) -> None:
        """Forget what was planned for a job that no client has any more."""
        if job.status not in DISPATCHED_JOB:
            self._without_output_since.pop(job.id, None)
            self._retry_at.pop(job.id, None)
            self._reconcile_at.pop(job.id, None)

    def submitted(self, job: Job, payload: Payload) -> None:
        """A client has accepted a job as ``payload``.

        Its first events may have come before this; and a submit that was repeated after a crash is
        answered with a payload that may have ended long ago, of which no event comes any more.
        """
        client = self._pool.get(job.client_url)
        if client is None:
            return
        self._reconcile_at[job.id] = self._clock() + RECONCILE_S
        status = self._early.take(client.url, payload.id) or payload.status
        if job.kill_requested or status not in (PayloadStatus.PREPARED, PayloadStatus.RUNNING):
            self.follow_up(job)
        elif status is PayloadStatus.RUNNING:
            self._note_that_it_runs(job)

    def on_event(self, client: Client, event: PayloadEvent) -> None:
        """A client tells that a payload has got a new state."""
        job = client.payloads.get(event.id)
        if job is None:
            self._early.keep(client.url, event.id, event.status)
        elif event.status in FINAL_PAYLOAD or event.status is PayloadStatus.CLEANED:
            self.follow_up(job)
        elif event.status is PayloadStatus.RUNNING:
            self._note_that_it_runs(job)

    def follow_up(self, job: Job) -> None:
        """Look at a job now; if that is being done already, once more afterwards."""
        client = self._pool.get(job.client_url)
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
        for tasks in (self._looks, self._notes):
            await tasks.close()

    async def idle(self) -> None:
        """Wait until no look is under way."""
        for tasks in (self._looks, self._notes):
            await tasks.drain(RECONCILE_S)

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
        try:
            async with self._turns[client.url]:
                with logging_about(**about_attempt(job)):
                    again = True
                    while again:
                        self._looking[job.id] = False
                        await self._look(await self._store.get(job.id), client)
                        again = self._looking[job.id]
        except (OSError, DatabaseError) as error:
            # Our own disk or database: the job is what it is, and looked at again.
            self._retry(job, error)
        finally:
            del self._looking[job.id]

    async def _look(self, job: Job, client: Client) -> None:
        """Ask the client for a job's results, and do what the answer calls for."""
        if job.dest_id is None:
            return  # it was given up meanwhile
        try:
            if job.status is JobStatus.KILLED:
                await self._keep_output_of_killed(job, client, job.dest_id)
            else:
                if job.kill_requested:
                    await client.api.kill(job.dest_id)
                await self._ask(job, client, job.dest_id)
        except PayloadLost as error:
            await self._lose(job, str(error), stray=False)
        except ClientUnreachable as error:
            self._retry(job, error)
            await self.client_lost(client, str(error))
        except StorageFull as error:
            self._retry(job, error)
        except (ClientError, BrokenArchive) as error:
            # As with a client that can't be reached: it is asked again, but not for ever.
            self._retry(job, error)
            with contextlib.suppress(TransitionRefused):
                await self._store.transition(job, JobStatus.UNKNOWN, str(error))
        except TransitionRefused as refused:
            logger.debug("Job %d: %s", job.id, refused)

    def _retry(self, job: Job, error: Exception) -> None:
        if job.status in DISPATCHED_JOB:
            self._retry_at[job.id] = self._clock() + RETRY_S
        logger.warning("Job %d: %s; next try in %g s", job.id, error, RETRY_S)

    async def _ask(self, job: Job, client: Client, dest_id: int) -> None:
        if job.status not in (JobStatus.SUBMITTED, JobStatus.RUNNING, JobStatus.UNKNOWN):
            return
        reach(Point.SERVER_BEFORE_FETCH)
        began = time.perf_counter()
        arrival = Arrival(self._files, job, self._max_result_bytes)
        try:
            answer = await client.api.retrieve(dest_id, job.key, arrival)
        except (FileNotFoundError, ResultsTooLarge) as error:
            why = await self._why_not_kept(job, error)
            await self._end(job, client, JobStatus.FAILED, why, 0, output_bytes=None)
            return
        if isinstance(answer, Payload):
            await self._apply(job, client, answer)
        else:
            self._fetched(time.perf_counter() - began)
            await self._end(job, client, JobStatus.COMPLETED, "", 0, output_bytes=answer)

    async def _apply(self, job: Job, client: Client, payload: Payload) -> None:
        """Bring a job to the state that its payload has."""
        if payload.status in ENDED_BADLY:
            await self._end_without_result(job, client, payload)
        elif payload.status is PayloadStatus.RUNNING:
            self._note_that_it_runs(job)
        elif payload.status is PayloadStatus.PREPARED:
            if job.status is JobStatus.UNKNOWN:
                await self._store.transition(job, JobStatus.SUBMITTED, "A client has it")
        else:
            raise PayloadLost(f"{client.api} has removed the results of payload {payload.id}")

    async def _end_without_result(self, job: Job, client: Client, payload: Payload) -> None:
        """A payload that ended badly: keep its output, then say why.

        A client that answers, and can't give the output for ``OUTPUT_PATIENCE_S`` (its disk is
        full, perhaps of this very payload), does not keep the job from its end: to run it again
        would not be the truth.
        """
        message = reason_of(payload)
        try:
            size, problem = await self._fetch_partial(job, client, payload.id)
        except (ClientBusy, ClientFailed) as error:
            since = self._without_output_since.setdefault(job.id, self._clock())
            if self._clock() - since < min(OUTPUT_PATIENCE_S, self._lost_after_s / 2):
                raise
            size, problem = None, f"Its output could not be fetched: {error}"
        message = f"{message}. {problem}" if problem else message
        status = ENDED_BADLY[payload.status]
        await self._end(job, client, status, message, payload.exit_code, output_bytes=size)

    async def _keep_output_of_killed(self, job: Job, client: Client, dest_id: int) -> None:
        if not job.has_output:
            size, problem = await self._fetch_partial(job, client, dest_id)
            if size is not None:
                await self._store.keep_output(job, size)
            elif problem:
                logger.warning("Job %d: %s", job.id, problem)
        client.discards.add(dest_id)

    async def _fetch_partial(
        self, job: Job, client: Client, dest_id: int
    ) -> tuple[int | None, str]:
        """Fetch what a payload left behind: its size, or None and what its user is to know of that.

        An older client can't give it, which nobody need know.
        """
        arrival = Arrival(self._files, job, self._max_result_bytes)
        try:
            return await client.api.retrieve_partial(dest_id, arrival), ""
        except PayloadLost:
            return None, ""
        except (FileNotFoundError, ResultsTooLarge) as error:
            return None, await self._why_not_kept(job, error)

    async def _why_not_kept(self, job: Job, error: FileNotFoundError | ResultsTooLarge) -> str:
        """Why results will never be kept. Raises ``error`` if that may pass."""
        if isinstance(error, ResultsTooLarge):
            return str(error)
        if await in_thread(self._files.lost, job):
            return NO_FOLDER
        raise error

    async def _end(
        self,
        job: Job,
        client: Client,
        status: JobStatus,
        message: str,
        exit_code: int | None,
        *,
        output_bytes: int | None,
    ) -> None:
        ended = await self._store.transition(
            job, status, message, exit_code=exit_code, output_bytes=output_bytes
        )
        reach(Point.SERVER_JOB_ENDED)
        logger.info("Job %d is %s%s", job.id, status, f": {message}" if message else "")
        if ended.dest_id is not None:
            client.discards.add(ended.dest_id)

    def _note_that_it_runs(self, job: Job) -> None:
        if job.status is not JobStatus.RUNNING:
            self._notes.spawn(self._note_running(job), f"job {job.id} runs")

    async def _note_running(self, job: Job) -> None:
        """Nobody waits for this: a quick job's end may be written in the same transaction."""
        try:
            await self._store.transition(
                job, JobStatus.RUNNING, "run.sh is executing", in_passing=True
            )
        except TransitionRefused as refused:
            logger.debug("Job %d: %s", job.id, refused)

    async def client_lost(self, client: Client, problem: str) -> None:
        """A client can't be reached: its jobs are Unknown, not gone."""
        await self._client_lost(client.url, problem)

    async def _client_lost(self, url: str, problem: str) -> None:
        for job in await self._store.client_lost(url, problem):
            logger.warning("Job %d is Unknown: %s", job.id, problem)

    async def _lose(self, job: Job, why: str, *, stray: bool) -> None:
        """The payload of a job is gone: run it again, unless that has been tried often enough.

        ``stray``: it may not be gone, only out of reach; then it is ended as soon as it can be.
        """
        given_up = job.key
        client, service = self._pool.get(job.client_url), self._services.get(job.service)
        try:
            job = await self._store.requeue(
                job,
                why,
                delay_s=0.0,
                max_attempts=service.max_attempts if service else 1,
                # That an administrator stops a client is no failure of the job.
                counts=client is None or not client.draining,
                stray=stray,
            )
        except TransitionRefused as refused:
            logger.debug("Job %d: %s", job.id, refused)
            return
        if stray and client is not None:
            client.strays.add(given_up)
        reach(Point.SERVER_JOB_LOST)
        logger.warning("Job %d is %s: %s", job.id, job.status, why)
