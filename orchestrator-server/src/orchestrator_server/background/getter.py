"""Brings states and results back from the clients.

Three things make it look at a job: the client pushed a change (at once), the client can only be
polled (every pass), or nothing was heard of the job for a while (reconciliation, slow). Whatever
the reason, the look is the same: ``_look``.
"""

import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping

from orchestrator_common.errors import StorageFull
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
from orchestrator_server.client_pool import Client, ClientPool
from orchestrator_server.errors import ClientError, ClientUnreachable, PayloadLost
from orchestrator_server.files import BrokenArchive, JobFiles
from orchestrator_server.settings import Service
from orchestrator_server.store import Job, JobStore

logger = logging.getLogger(__name__)

RECONCILE_S = 60.0
"""A job of which nothing was heard for so long is asked for, even if its client pushes."""

RECONCILE_AT_ONCE = 16
RETRY_S = 5.0
MAX_EARLY_EVENTS = 10_000
MAX_LOOKS = 32
"""Requests for results at once to one client."""

_JOB_STATUS = {
    PayloadStatus.FAILED: JobStatus.FAILED,
    PayloadStatus.INVALID: JobStatus.INVALID,
    PayloadStatus.KILLED: JobStatus.KILLED,
}


class Getter:
    """The getter's pass, and what the event streams tell it. A listener of the store.

    ``clock`` gives seconds that only grow. Each client has its own bounded set of tasks: one that
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
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._files = files
        self._pool = pool
        self._services = services
        self._lost_after_s = lost_after_s
        self._clock = clock
        self._looks = {client.url: TaskOwner("getter", limit=MAX_LOOKS) for client in pool}
        # Jobs being looked at; True: something happened meanwhile, look once more.
        self._looking: dict[int, bool] = {}
        # Not before when a job is looked at again, unless its client pushes something.
        self._due: dict[int, float] = {}
        # Last event of each payload, by client and id: a quick payload may have ended before the
        # answer to its submit is written down here.
        self._early: OrderedDict[tuple[str, int], PayloadEvent] = OrderedDict()

    async def run_pass(self) -> None:
        """Look at the jobs of clients that can only be polled, and at those that are due."""
        for client in self._pool:
            now = self._clock()
            due = [i for i in client.jobs if self._due.get(i, 0.0) <= now]
            if client.pushes:
                due = sorted(due, key=lambda i: self._due.get(i, 0.0))[:RECONCILE_AT_ONCE]
            if due:
                await self._look_at(client, set(due))
        for job in await self._store.unknown_for(self._lost_after_s):
            why = f"{job.message} (for more than {self._lost_after_s:g} s)"
            if (silent := self._pool.get(job.client_url)) is not None:
                self._pool.failed(silent, why)
            await self._lose(job, why)

    async def reconcile(self, client: Client) -> None:
        """Look at every job of a client: it has just become reachable, events may be missed."""
        await self._look_at(client, client.jobs)

    def track(self, job: Job) -> None:
        """Forget what was planned for a job that no client has any more."""
        if job.status not in DISPATCHED_JOB:
            self._due.pop(job.id, None)

    def submitted(self, job: Job, payload: Payload) -> None:
        """A client has accepted a job as ``payload``.

        Its first events may have come before this; and a submit that was repeated after a crash is
        answered with a payload that may have ended long ago, of which no event comes any more.
        """
        client = self._pool.get(job.client_url)
        if client is None:
            return
        self._plan_next_look(job, client)
        event = self._early.pop((client.url, payload.id), None)
        status = payload.status if event is None else event.status
        if job.kill_requested or status not in (PayloadStatus.PREPARED, PayloadStatus.RUNNING):
            self.follow_up(job)
        elif status is PayloadStatus.RUNNING:
            self._looks[client.url].spawn(self._note_running(job), f"job {job.id} runs")

    async def on_event(self, client: Client, event: PayloadEvent) -> None:
        """A client tells that a payload has got a new state."""
        # Kept before the database is asked: the submit may be written down while it answers.
        self._early[client.url, event.id] = event
        while len(self._early) > MAX_EARLY_EVENTS:
            self._early.popitem(last=False)
        job = await self._store.by_payload(client.url, event.id)
        if job is None:
            return
        self._early.pop((client.url, event.id), None)
        if event.status in FINAL_PAYLOAD:
            self.follow_up(job)
        elif event.status is PayloadStatus.RUNNING:
            await self._note_running(job)

    def follow_up(self, job: Job) -> None:
        """Look at a job now; if that is being done already, once more afterwards."""
        client = self._pool.get(job.client_url)
        if client is None:
            return
        looks = self._looks[client.url]
        if job.id in self._looking:
            self._looking[job.id] = True
        elif looks.free:
            self._looking[job.id] = False
            self._plan_next_look(job, client)
            looks.spawn(self._follow(job, client), f"job {job.id}")
        else:
            self._due[job.id] = self._clock()

    async def close(self) -> None:
        """Cancel all looks; results that are half here are fetched again by the next life."""
        for looks in self._looks.values():
            await looks.close()

    async def idle(self) -> None:
        """Wait until no look is under way."""
        for looks in self._looks.values():
            await looks.drain(RECONCILE_S)

    def _plan_next_look(self, job: Job, client: Client) -> None:
        self._due[job.id] = self._clock() + (RECONCILE_S if client.pushes else 0.0)

    async def _look_at(self, client: Client, job_ids: Collection[int]) -> None:
        for job in await self._store.dispatched(client.url):
            if job.id in job_ids and job.id not in self._looking:
                self.follow_up(job)

    async def _follow(self, job: Job, client: Client) -> None:
        try:
            await self._look(job, client)
            while self._looking[job.id]:
                self._looking[job.id] = False
                job = await self._store.get(job.id)
                await self._look(job, client)
        finally:
            del self._looking[job.id]

    async def _look(self, job: Job, client: Client) -> None:
        """Ask the client for a job's results, and do what the answer calls for."""
        if job.dest_id is None:
            return  # it was given up meanwhile
        try:
            if job.status is JobStatus.KILLED:
                await self._keep_output_of_killed(job, client, job.dest_id)
            elif job.kill_requested:
                await client.api.kill(job.dest_id)
                await self._ask(job, client, job.dest_id)
            else:
                await self._ask(job, client, job.dest_id)
        except PayloadLost as error:
            await self._lose(job, str(error))
        except ClientUnreachable as error:
            self._due[job.id] = self._clock() + RETRY_S
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
        finally:
            await in_thread(self._files.drop_arriving, job)

    def _retry(self, job: Job, error: Exception) -> None:
        self._due[job.id] = self._clock() + RETRY_S
        logger.warning("Job %d: %s; next try in %g s", job.id, error, RETRY_S)

    async def _ask(self, job: Job, client: Client, dest_id: int) -> None:
        if job.status in (JobStatus.SUBMITTED, JobStatus.RUNNING, JobStatus.UNKNOWN):
            payload = await client.api.retrieve(dest_id, job.key, self._files.arriving(job))
            if payload is None:
                await in_thread(self._files.keep_result, job)
                await self._end(job, client, JobStatus.COMPLETED, "", 0, has_output=True)
            else:
                await self._apply(job, client, payload)

    async def _apply(self, job: Job, client: Client, payload: Payload) -> None:
        """Bring a job to the state that its payload has."""
        if payload.status in _JOB_STATUS:
            await self._end_without_result(job, client, payload)
        elif payload.status is PayloadStatus.RUNNING:
            await self._note_running(job)
        elif payload.status is PayloadStatus.PREPARED:
            if job.status is JobStatus.UNKNOWN:
                await self._store.transition(job, JobStatus.SUBMITTED, "A client has it")
        else:
            raise PayloadLost(f"{client.api} has removed the results of payload {payload.id}")

    async def _end_without_result(self, job: Job, client: Client, payload: Payload) -> None:
        """A payload that ended badly: keep its output, then say why."""
        has_output = await self._fetch_partial(job, client, payload.id)
        message = payload.message or _default_message(payload)
        status = _JOB_STATUS[payload.status]
        await self._end(job, client, status, message, payload.exit_code, has_output=has_output)

    async def _keep_output_of_killed(self, job: Job, client: Client, dest_id: int) -> None:
        if not job.has_output and await self._fetch_partial(job, client, dest_id):
            await self._store.keep_output(job)
        await self._forget(client, dest_id)

    async def _fetch_partial(self, job: Job, client: Client, dest_id: int) -> bool:
        """Fetch what a payload left behind; False if its client, an older one, can't give it."""
        try:
            await client.api.retrieve_partial(dest_id, self._files.arriving(job))
        except PayloadLost:
            return False
        await in_thread(self._files.keep_result, job)
        return True

    async def _end(
        self,
        job: Job,
        client: Client,
        status: JobStatus,
        message: str,
        exit_code: int | None,
        *,
        has_output: bool,
    ) -> None:
        ended = await self._store.transition(
            job, status, message, exit_code=exit_code, has_output=has_output
        )
        self._due.pop(job.id, None)
        logger.info("Job %d is %s%s", job.id, status, f": {message}" if message else "")
        if ended.dest_id is not None:
            await self._forget(client, ended.dest_id)

    async def _forget(self, client: Client, dest_id: int) -> None:
        """Let the client clean up. Only ours can; and if this fails, its own cleaner does it."""
        if client.pushes:
            try:
                await client.api.forget(dest_id)
            except ClientError as error:
                logger.debug("%s", error)

    async def _note_running(self, job: Job) -> None:
        if job.status is not JobStatus.RUNNING:
            try:
                await self._store.transition(job, JobStatus.RUNNING, "run.sh is executing")
            except TransitionRefused as refused:
                logger.debug("Job %d: %s", job.id, refused)

    async def client_lost(self, client: Client, problem: str) -> None:
        """A client can't be reached: its jobs are Unknown, not gone."""
        for job in await self._store.client_lost(client.url, problem):
            logger.warning("Job %d is Unknown: %s", job.id, problem)

    async def _lose(self, job: Job, why: str) -> None:
        """The payload of a job is gone: run it again, unless that has been tried often enough."""
        service = self._services.get(job.service)
        try:
            job = await self._store.requeue(
                job,
                why,
                delay_s=0.0,
                max_attempts=service.max_attempts if service else 1,
                counts=True,
            )
        except TransitionRefused as refused:
            logger.debug("Job %d: %s", job.id, refused)
            return
        self._due.pop(job.id, None)
        logger.warning("Job %d is %s: %s", job.id, job.status, why)


def _default_message(payload: Payload) -> str:
    """For clients that give no message."""
    if payload.status is PayloadStatus.INVALID:
        return "The client's check of run.sh refused it"
    if payload.exit_code is not None:
        return f"run.sh exited with code {payload.exit_code}"
    return f"The client reports {payload.status}"
