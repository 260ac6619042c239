"""Delivery of one claimed job to its client."""

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Mapping

from job_orchestrator.common.errors import StorageFull
from job_orchestrator.common.messages.payloads import Payload
from job_orchestrator.common.runtime.backoff import Backoff
from job_orchestrator.common.runtime.fault_injection import Point, reach
from job_orchestrator.common.status import JobStatus, TransitionRefused
from job_orchestrator.server.clients.registry import Client, ClientRegistry
from job_orchestrator.server.dispatch.collector import Collector
from job_orchestrator.server.dispatch.inputs import JobInputs
from job_orchestrator.server.dispatch.outcome import (
    UNEXPECTED,
    WAITS_FOR_SLOT,
    ClientNotConfigured,
    ClientRunsNoTasks,
    FailedAttempts,
    failure_of,
)
from job_orchestrator.server.errors import (
    AnswerLost,
    ClientBusy,
    ClientError,
    ClientFailed,
    ClientUnreachable,
    PayloadLost,
)
from job_orchestrator.server.model import Job, Service
from job_orchestrator.server.store.base import JobStore

FULL_DISK_DELAY_S = 30.0
"""Time until a job is sent again for which the server had no disk space."""

logger = logging.getLogger(__name__)


class Delivery:
    """Delivers claimed jobs to their clients, or back to the queue, or to their end.

    ``lost_after_s`` bounds how long a request whose answer was lost is repeated.
    """

    def __init__(
        self,
        store: JobStore,
        inputs: JobInputs,
        registry: ClientRegistry,
        services: Mapping[str, Service],
        failed_attempts: FailedAttempts,
        collector: Collector,
        *,
        lost_after_s: float,
        backoff: Backoff,
    ) -> None:
        self._store = store
        self._inputs = inputs
        self._registry = registry
        self._services = services
        self._failed_attempts = failed_attempts
        self._collector = collector
        self._lost_after_s = lost_after_s
        self._backoff = backoff

    async def deliver(self, job: Job, *, resumed: bool) -> None:
        """Deliver a Processing job.

        ``resumed``: an earlier delivery was interrupted, so the client may have the job already.
        """
        if job.kill_requested and not resumed:
            await self._store.transition(job, JobStatus.KILLED, "Terminated on request")
            return
        client = self._registry.get(job.client)
        if client is None:
            missing = ClientNotConfigured(job.client)
            await self._failed_attempts.give_up(job, failure_of(missing), missing)
            return
        self._registry.begin_attempt(client)
        payload = None
        try:
            # A resumed delivery goes to a client that had the job, and may not have reported yet.
            if job.array_id is not None and not (client.runs_tasks or resumed):
                raise ClientRunsNoTasks(client.name)
            if job.kill_requested:
                await self._kill(job, client)
            else:
                payload = await self._submit(job, client, may_have_it=resumed)
        except Exception as error:
            await self._fail(job, client, error)
            return
        self._registry.mark_working(client)
        if payload is not None:
            await self._record_submitted(job, client, payload)

    async def _fail(self, job: Job, client: Client, error: Exception) -> None:
        """Apply the consequences of a failed delivery to client and job."""
        failure, delay_s = failure_of(error), 0.0
        if failure is UNEXPECTED:
            logger.error("Job %d could not be sent", job.id, exc_info=error)
        if failure.client_failed:
            problem = str(error) if isinstance(error, ClientError) else f"{client.name}: {error}"
            backs_off_s = self._registry.mark_failed(client, problem)
            delay_s = backs_off_s if failure.waits else 0.0
        else:
            self._registry.mark_working(client)
            delay_s = FULL_DISK_DELAY_S if isinstance(error, StorageFull) else 0.0
        await self._failed_attempts.give_up(job, failure, error, delay_s=delay_s)

    async def _submit(self, job: Job, client: Client, *, may_have_it: bool) -> Payload:
        """Send a job's files to its client."""
        async with self._inputs.of(job) as files:

            async def send() -> Payload:
                reach(Point.SERVER_BEFORE_SEND)
                payload = await client.transport.submit(
                    files, job.key, time_limit_s=self._time_limit_s(job)
                )
                reach(Point.SERVER_SENT)
                return payload

            return await self._until_answered(send, client, may_have_it=may_have_it)

    async def _kill(self, job: Job, client: Client) -> None:
        """End a job that an interrupted delivery may have brought to its client.

        The job is Killed only when the client has confirmed that nothing runs. An older client,
        which does not know payloads by key, is sent the job again: its answer names the payload.
        """
        try:
            payload = await self._until_answered(
                lambda: client.transport.kill_key(job.key), client, may_have_it=True
            )
        except PayloadLost:
            payload = await self._submit(job, client, may_have_it=True)
            await client.transport.kill(payload.id)
        await self._store.transition(
            job, JobStatus.KILLED, "Terminated on request", acknowledge=payload.id
        )
        client.unacknowledged.add(payload.id)

    async def _until_answered(
        self, request: Callable[[], Awaitable[Payload]], client: Client, *, may_have_it: bool
    ) -> Payload:
        """Repeat ``request`` as long as the client may have the job and does not say so.

        Raises ``AnswerLost`` when that has gone on for ``LOST_AFTER``, and any other error
        immediately while the client can't have the job.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + self._lost_after_s
        for tries in itertools.count(1):
            try:
                return await request()
            except (AnswerLost, ClientUnreachable, ClientBusy, ClientFailed) as error:
                may_have_it = may_have_it or isinstance(error, AnswerLost)
                if not may_have_it:
                    raise
                self._registry.mark_failed(client, str(error))
                delay_s = self._backoff.delay_s(tries)
                if loop.time() + delay_s >= until:
                    raise AnswerLost(str(error)) from error
            await asyncio.sleep(delay_s)
        raise AssertionError("unreachable")

    def _time_limit_s(self, job: Job) -> float | None:
        """Return the lower of the job's own time limit and that of its service, if any."""
        service = self._services.get(job.service)
        limits = (job.time_limit_s, service.time_limit_s if service else None)
        return min((limit for limit in limits if limit is not None), default=None)

    async def _record_submitted(self, job: Job, client: Client, payload: Payload) -> None:
        try:
            # Deferred: no request waits for it, and the end of a short job may share its
            # transaction. Before a crash forgets it, the same payload answers a repeat.
            with self._collector.accepted(job, payload):
                submitted = await self._store.transition(
                    job,
                    JobStatus.SUBMITTED,
                    WAITS_FOR_SLOT,
                    dest_id=payload.id,
                    at=payload.at or None,
                    deferred=True,
                )
        except TransitionRefused as error:
            # Only a delivery moves a Processing job, so this should not happen. If it does, end the
            # payload, unless it is the one that the job refers to.
            now = await self._store.get(job.id)
            logger.error("%s; its payload %d is at %s", error, payload.id, client.name)
            if (now.client, now.dest_id) != (client.name, payload.id):
                await client.transport.kill(payload.id)
            return
        reach(Point.SERVER_SUBMITTED)
        self._collector.on_submitted(submitted, payload)
