"""Fetches the state and the results of a job from its client, and applies them to the job."""

import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Any, Protocol

import msgspec

from job_orchestrator.common.errors import StorageFull
from job_orchestrator.common.messages.payloads import Payload
from job_orchestrator.common.runtime.fault_injection import Point, reach
from job_orchestrator.common.runtime.loops import TaskOwner
from job_orchestrator.common.status import JobStatus, PayloadStatus, TransitionRefused
from job_orchestrator.server.clients.base import EndedPayload
from job_orchestrator.server.clients.registry import Client
from job_orchestrator.server.dispatch.fetch_schedule import FetchSchedule
from job_orchestrator.server.dispatch.outcome import RUNS, WAITS_FOR_SLOT, FailedAttempts
from job_orchestrator.server.errors import (
    ClientBusy,
    ClientError,
    ClientFailed,
    ClientUnreachable,
    PayloadLost,
    ResultsTooLarge,
)
from job_orchestrator.server.files.base import BrokenArchive
from job_orchestrator.server.jobs.reasons import reason_for, with_details
from job_orchestrator.server.jobs.stored_files import StoredFiles
from job_orchestrator.server.model import Job, StoredOutput
from job_orchestrator.server.store.base import JobStore

logger = logging.getLogger(__name__)

MAX_DEFERRED_WRITES = 10_000

NO_FOLDER = "Its folder on the server is gone: there is no place for its results"

ENDED_BADLY: Mapping[PayloadStatus, JobStatus] = {
    PayloadStatus.FAILED: JobStatus.FAILED,
    PayloadStatus.INVALID: JobStatus.INVALID,
    PayloadStatus.KILLED: JobStatus.KILLED,
}
"""The state of a job whose payload ended without results."""


class Histogram(Protocol):
    """A metric that collects values, as those of prometheus_client."""

    def observe(self, amount: float) -> None:
        """Add a value."""


class Fetcher:
    """Fetches jobs. The collector decides when, and runs at most one fetch of a job at a time.

    ``fetch_seconds`` observes the duration of each fetch of results, ``clock`` returns monotonic
    seconds. A failed job waits at most ``output_patience_s`` for its output.
    """

    def __init__(
        self,
        store: JobStore,
        files: StoredFiles,
        schedule: FetchSchedule,
        failed_attempts: FailedAttempts,
        fetch_seconds: Histogram,
        *,
        max_result_bytes: int,
        output_patience_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._files = files
        self._schedule = schedule
        self._failed_attempts = failed_attempts
        self._fetch_seconds = fetch_seconds
        self._max_result_bytes = max_result_bytes
        self._output_patience_s = output_patience_s
        self._clock = clock
        self._deferred_writes = TaskOwner("fetcher", limit=MAX_DEFERRED_WRITES)
        # Since when the output of an ended payload could not be fetched, by job.
        self._without_output_since: dict[int, float] = {}

    def forget(self, job: Job) -> None:
        """Drop what is known of a job that no client has any more."""
        self._without_output_since.pop(job.id, None)

    async def close(self) -> None:
        """Cancel deferred writes."""
        await self._deferred_writes.close()

    async def fetch(self, job: Job, client: Client) -> None:
        """Ask the client for a job's results, and apply the answer to the job.

        A failure to reach the client or to keep the results plans another fetch.
        """
        if job.dest_id is not None:  # None: the attempt was given up in the meantime
            await self._or_retry(self._fetch(job, client, job.dest_id), job, client)

    async def keep(self, job: Job, client: Client, ended: EndedPayload) -> None:
        """Keep the results that the client has sent with the end of a job. Fails like ``fetch``."""
        reach(Point.SERVER_END_ARRIVED)
        await self._or_retry(self._keep(job, client, ended), job, client)

    async def _or_retry(self, work: Coroutine[Any, Any, None], job: Job, client: Client) -> None:
        """Run ``work``, and plan another fetch if it fails for a reason that may pass."""
        try:
            await work
        except PayloadLost as error:
            await self._failed_attempts.give_up_dispatched(job, error)
        except ClientUnreachable as error:
            self._schedule.retry(job, error)
            await self.mark_unknown(client.name, str(error))
        except StorageFull as error:
            self._schedule.retry(job, error)
        except (ClientError, BrokenArchive) as error:
            # Unknown, as with a client that can't be reached: LOST_AFTER ends the retries.
            self._schedule.retry(job, error)
            with contextlib.suppress(TransitionRefused):
                reason = with_details("Its results can't be fetched at present", str(error))
                await self._store.transition(job, JobStatus.UNKNOWN, reason)
        except TransitionRefused as refused:
            logger.debug("Job %d: %s", job.id, refused)

    async def _fetch(self, job: Job, client: Client, payload_id: int) -> None:
        if job.status is JobStatus.KILLED:
            await self._keep_output_of_killed(job, client, payload_id)
            return
        if job.kill_requested:
            await client.transport.kill(payload_id)
        await self._fetch_results(job, client, payload_id)

    async def _keep(self, job: Job, client: Client, ended: EndedPayload) -> None:
        receiver = self._files.result_receiver(job, self._max_result_bytes)
        output, problem = None, ""
        try:
            output = await receiver.receive(_in_one_block(ended.results), ended.sha256)
        except (FileNotFoundError, ResultsTooLarge) as error:
            problem = await self._why_not_kept(job, error)
        end = ended.end
        at, run_s = end.at or None, _known(end.run_s)
        if end.status is not PayloadStatus.COMPLETED:
            message = f"{end.message}. {problem}" if problem else end.message
            status = ENDED_BADLY[end.status]
            code = end.exit_code
        elif output is None:
            status, message, code = JobStatus.FAILED, problem, 0
        else:
            status, message, code = JobStatus.COMPLETED, "", 0
        await self._end(job, client, status, message, code, output=output, at=at, run_s=run_s)

    def record_running(self, job: Job, reason: str, *, at: float | None = None) -> None:
        """Record that a job's script was started, or why it is still Running after its end.

        ``reason`` is that of the client, empty while the script is executing. ``at`` is when the
        script was started, if that is known. Only the first one is
        recorded: the number of events of a job does not depend on its client. The write is
        deferred, as no request waits for it: the end of a short job may be written in the same
        transaction.
        """
        if job.status is not JobStatus.RUNNING:
            work = self._write_running(job, reason or RUNS, at)
        elif reason and job.message == RUNS:
            work = self._store.explain(job, reason)
        else:
            return
        self._deferred_writes.spawn(work, f"job {job.id} runs")

    async def record_waiting(self, job: Job, reason: str) -> None:
        """Record why a job that has not begun waits at its client, such as in a batch system."""
        if job.status is JobStatus.SUBMITTED and reason and reason != job.message:
            await self._store.explain(job, reason)

    async def mark_unknown(self, client_name: str, problem: str) -> None:
        """Make the jobs of a client that can't be reached Unknown: they may still run there."""
        reason = with_details("The machine it is on can't be reached at present", problem)
        for job in await self._store.client_lost(client_name, reason):
            logger.warning("Job %d is Unknown: %s", job.id, problem)

    async def _fetch_results(self, job: Job, client: Client, payload_id: int) -> None:
        if job.status not in (JobStatus.SUBMITTED, JobStatus.RUNNING, JobStatus.UNKNOWN):
            return
        reach(Point.SERVER_BEFORE_FETCH)
        began = time.perf_counter()
        receiver = self._files.result_receiver(job, self._max_result_bytes)
        try:
            answer = await client.transport.retrieve(payload_id, job.key, receiver)
        except (FileNotFoundError, ResultsTooLarge) as error:
            why = await self._why_not_kept(job, error)
            await self._end(job, client, JobStatus.FAILED, why, 0, output=None)
            return
        if isinstance(answer, Payload):
            await self._apply(job, client, answer)
        else:
            self._fetch_seconds.observe(time.perf_counter() - began)
            await self._end(
                job, client, JobStatus.COMPLETED, "", 0, output=answer, run_s=answer.run_s
            )

    async def _apply(self, job: Job, client: Client, payload: Payload) -> None:
        """Bring a job to the state of its payload, which has no results (yet)."""
        if payload.status in ENDED_BADLY:
            await self._end_without_result(job, client, payload)
        elif payload.status is PayloadStatus.RUNNING:
            self.record_running(job, payload.message or "")
        elif payload.status is PayloadStatus.PREPARED:
            if job.status is JobStatus.UNKNOWN:
                job = await self._store.transition(job, JobStatus.SUBMITTED, WAITS_FOR_SLOT)
            await self.record_waiting(job, payload.message or "")
        else:
            raise PayloadLost(f"{client.name} has removed the results of payload {payload.id}")

    async def _end_without_result(self, job: Job, client: Client, payload: Payload) -> None:
        """Keep the output of a payload that ended badly, then end its job.

        A client that answers may be unable to hand over the output because its disk is full,
        perhaps of this very payload. After a while the job ends without output, because running it
        again would hide how it ended.
        """
        message = reason_of(payload)
        try:
            output, problem = await self._fetch_partial(job, client, payload.id)
        except (ClientBusy, ClientFailed) as error:
            since = self._without_output_since.setdefault(job.id, self._clock())
            if self._clock() - since < self._output_patience_s:
                raise
            output, problem = None, with_details("Its output could not be fetched", str(error))
        message = f"{message}. {problem}" if problem else message
        status = ENDED_BADLY[payload.status]
        run_s = _known(payload.run_s)
        await self._end(job, client, status, message, payload.exit_code, output=output, run_s=run_s)

    async def _keep_output_of_killed(self, job: Job, client: Client, payload_id: int) -> None:
        if not job.has_output:
            output, problem = await self._fetch_partial(job, client, payload_id)
            if output is not None:
                await self._store.keep_output(job, output)
            else:
                if problem:
                    logger.warning("Job %d: %s", job.id, problem)
                await self._store.acknowledgements.add(client.name, payload_id)
        client.unacknowledged.add(payload_id)

    async def _fetch_partial(
        self, job: Job, client: Client, payload_id: int
    ) -> tuple[StoredOutput | None, str]:
        """Fetch the output that a payload has. Returns None and the reason if it was not kept.

        The reason is empty for an older client, which can't hand over partial output.
        """
        receiver = self._files.result_receiver(job, self._max_result_bytes)
        try:
            return await client.transport.retrieve_partial(payload_id, receiver), ""
        except PayloadLost:
            return None, ""
        except (FileNotFoundError, ResultsTooLarge) as error:
            return None, await self._why_not_kept(job, error)

    async def _why_not_kept(self, job: Job, error: FileNotFoundError | ResultsTooLarge) -> str:
        """Return why results can never be kept. Raises ``error`` if a repeat may succeed."""
        if isinstance(error, ResultsTooLarge):
            return str(error)
        if await self._files.are_lost(job):
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
        output: StoredOutput | None,
        at: float | None = None,
        run_s: float | None = None,
    ) -> None:
        ended = await self._store.transition(
            job,
            status,
            message,
            exit_code=exit_code,
            output=output,
            acknowledge=job.dest_id,
            at=at,
            run_s=run_s,
        )
        reach(Point.SERVER_JOB_ENDED)
        why = reason_for(message, details=True)
        logger.info("Job %d is %s%s", job.id, status, f": {why}" if why else "")
        if ended.dest_id is not None:
            client.unacknowledged.add(ended.dest_id)

    async def _write_running(self, job: Job, reason: str, at: float | None) -> None:
        try:
            await self._store.transition(job, JobStatus.RUNNING, reason, at=at, deferred=True)
        except TransitionRefused as refused:
            logger.debug("Job %d: %s", job.id, refused)


async def _in_one_block(content: bytes) -> AsyncIterator[bytes]:
    yield content


def _known(run_s: float | msgspec.UnsetType) -> float | None:
    """Return how long a script ran; None if an older client did not say so."""
    return None if run_s is msgspec.UNSET else run_s


def reason_of(payload: Payload) -> str:
    """Return why a payload ended without results. Older clients don't send a message."""
    if payload.message:
        return payload.message
    if payload.status is PayloadStatus.INVALID:
        return "The client's check of run.sh refused it"
    if payload.exit_code is not None:
        return f"run.sh exited with code {payload.exit_code}"
    return f"The client reports {payload.status}"
