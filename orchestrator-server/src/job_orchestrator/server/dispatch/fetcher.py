"""Asks a client for a job, and does what the answer calls for."""

import contextlib
import logging
import time
from collections.abc import Callable, Mapping

from job_orchestrator.common.errors import StorageFull
from job_orchestrator.common.messages import Payload
from job_orchestrator.common.runtime.fault_injection import Point, reach
from job_orchestrator.common.runtime.loops import TaskOwner
from job_orchestrator.common.runtime.threads import in_thread
from job_orchestrator.common.status import JobStatus, PayloadStatus, TransitionRefused
from job_orchestrator.server.clients.registry import Client, ClientPool
from job_orchestrator.server.dispatch.payload_ends import ENDED_BADLY, reason_of
from job_orchestrator.server.errors import (
    ClientBusy,
    ClientError,
    ClientFailed,
    ClientUnreachable,
    PayloadLost,
    ResultsTooLarge,
)
from job_orchestrator.server.files.base import BrokenArchive, JobFiles
from job_orchestrator.server.model import Job, Service
from job_orchestrator.server.store.sqlite.jobs import JobStore

logger = logging.getLogger(__name__)

OUTPUT_PATIENCE_S = 30.0
MAX_NOTES = 10_000

NO_FOLDER = "Its folder on the server is gone: there is no place for its results"


class Fetcher:
    """Looks at jobs, one at a time each; *when* is the getter's concern.

    ``retry`` is told of a job that has to be looked at again, and why. ``clock`` gives seconds that
    only grow, ``fetched`` is called with the seconds that it took to fetch results.
    """

    def __init__(
        self,
        store: JobStore,
        files: JobFiles,
        pool: ClientPool,
        services: Mapping[str, Service],
        retry: Callable[[Job, Exception], None],
        *,
        lost_after_s: float,
        max_result_bytes: int,
        clock: Callable[[], float],
        fetched: Callable[[float], None],
    ) -> None:
        self._store = store
        self._files = files
        self._pool = pool
        self._services = services
        self._retry = retry
        self._lost_after_s = lost_after_s
        self._max_result_bytes = max_result_bytes
        self._clock = clock
        self._fetched = fetched
        self._notes = TaskOwner("getter", limit=MAX_NOTES)
        # Since when the output of an ended payload can't be had.
        self._without_output_since: dict[int, float] = {}

    def forget(self, job: Job) -> None:
        """No client has the job any more."""
        self._without_output_since.pop(job.id, None)

    async def close(self) -> None:
        """Cancel what is being noted."""
        await self._notes.close()

    async def look(self, job: Job, client: Client) -> None:
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
            await self.lose(job, str(error), may_still_run=False)
        except ClientUnreachable as error:
            self._retry(job, error)
            await self.client_lost(client.url, str(error))
        except StorageFull as error:
            self._retry(job, error)
        except (ClientError, BrokenArchive) as error:
            # As with a client that can't be reached: it is asked again, but not for ever.
            self._retry(job, error)
            with contextlib.suppress(TransitionRefused):
                await self._store.transition(job, JobStatus.UNKNOWN, str(error))
        except TransitionRefused as refused:
            logger.debug("Job %d: %s", job.id, refused)

    async def _ask(self, job: Job, client: Client, dest_id: int) -> None:
        if job.status not in (JobStatus.SUBMITTED, JobStatus.RUNNING, JobStatus.UNKNOWN):
            return
        reach(Point.SERVER_BEFORE_FETCH)
        began = time.perf_counter()
        receiver = self._files.result_receiver(job, self._max_result_bytes)
        try:
            answer = await client.api.retrieve(dest_id, job.key, receiver)
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
            self.note_that_it_runs(job)
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
        receiver = self._files.result_receiver(job, self._max_result_bytes)
        try:
            return await client.api.retrieve_partial(dest_id, receiver), ""
        except PayloadLost:
            return None, ""
        except (FileNotFoundError, ResultsTooLarge) as error:
            return None, await self._why_not_kept(job, error)

    async def _why_not_kept(self, job: Job, error: FileNotFoundError | ResultsTooLarge) -> str:
        """Why results will never be kept. Raises ``error`` if that may pass."""
        if isinstance(error, ResultsTooLarge):
            return str(error)
        if await in_thread(self._files.are_lost, job):
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

    def note_that_it_runs(self, job: Job) -> None:
        """A job's script was started."""
        if job.status is not JobStatus.RUNNING:
            self._notes.spawn(self._note_running(job), f"job {job.id} runs")

    async def _note_running(self, job: Job) -> None:
        """Nobody waits for this: a quick job's end may be written in the same transaction."""
        try:
            await self._store.transition(
                job, JobStatus.RUNNING, "run.sh is executing", deferred=True
            )
        except TransitionRefused as refused:
            logger.debug("Job %d: %s", job.id, refused)

    async def client_lost(self, url: str, problem: str) -> None:
        """A client can't be reached: its jobs are Unknown, not gone."""
        for job in await self._store.client_lost(url, problem):
            logger.warning("Job %d is Unknown: %s", job.id, problem)

    async def lose(self, job: Job, why: str, *, may_still_run: bool) -> None:
        """The payload of a job is gone: run it again, unless that has been tried often enough.

        ``may_still_run``: it may not be gone, only out of reach; then it is ended as soon as it can be.
        """
        given_up = job.key
        client, service = self._pool.get(job.client), self._services.get(job.service)
        try:
            job = await self._store.requeue(
                job,
                why,
                delay_s=0.0,
                max_attempts=service.max_attempts if service else 1,
                # That an administrator stops a client is no failure of the job.
                counts=client is None or not client.draining,
                may_still_run=may_still_run,
            )
        except TransitionRefused as refused:
            logger.debug("Job %d: %s", job.id, refused)
            return
        if may_still_run and client is not None:
            client.strays.add(given_up)
        reach(Point.SERVER_JOB_LOST)
        logger.warning("Job %d is %s: %s", job.id, job.status, why)
