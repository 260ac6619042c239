"""Termination of jobs."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from job_orchestrator.common.runtime.fault_injection import Point, reach
from job_orchestrator.common.status import JobStatus, PayloadStatus, TransitionRefused
from job_orchestrator.server.clients.registry import ClientRegistry
from job_orchestrator.server.errors import (
    ClientError,
    ClientUnreachable,
    JobAlreadyEnded,
    PayloadLost,
)
from job_orchestrator.server.jobs.changes import ChangeFeed
from job_orchestrator.server.model import Job
from job_orchestrator.server.store.base import JobStore

TERMINATE_TIMEOUT_S = 30.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class JobTermination:
    """Terminates jobs.

    ``follow_up`` is called with each job whose client has something to fetch: results, or the
    output of a killed payload.
    """

    store: JobStore
    feed: ChangeFeed
    clients: ClientRegistry
    follow_up: Callable[[Job], None]

    async def terminate(self, job_id: int) -> Job:
        """Terminate a job, and return it: Killed if no process of the job runs any more.

        The request is stored first, so that it survives a crash and also reaches a job that is
        being sent to a client. If the client of the job does not answer, the job is returned as it
        is, and is terminated as soon as the client answers again. Raises ``JobNotFound``,
        ``JobAlreadyEnded``.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + TERMINATE_TIMEOUT_S
        with self.feed.following(job_id) as changes:
            job = await self.store.request_kill(job_id)
            reach(Point.SERVER_KILL_NOTED)
            if not job.kill_requested or job.status.has_ended:
                raise JobAlreadyEnded(job.id, job.status)
            while True:
                try:
                    killed = await self._try_to_kill(job)
                except ClientError as error:
                    logger.warning("Job %d can't be terminated yet: %s", job.id, error)
                    return await self.store.get(job.id)
                if killed is not None:
                    return killed
                changed = await changes.wait(deadline - loop.time())
                if changed is None:
                    logger.warning("Job %d can't be terminated yet: no answer", job.id)
                    return await self.store.get(job.id)
                job = changed

    async def _try_to_kill(self, job: Job) -> Job | None:
        """Kill a job. Returns None if that must be tried again when the job has changed.

        That is so while the job is being sent to a client, while results of a payload that ended
        by itself are being fetched, and after a change that another component made first.
        """
        if job.status is JobStatus.KILLED:
            return job
        if job.status.has_ended:
            raise JobAlreadyEnded(job.id, job.status)
        if job.status is JobStatus.PROCESSING:
            return None
        if job.status is not JobStatus.QUEUED and await self._payload_had_ended(job):
            self.follow_up(job)
            return None
        try:
            killed = await self.store.transition(job, JobStatus.KILLED, "Terminated on request")
        except TransitionRefused:
            return None
        reach(Point.SERVER_JOB_KILLED)
        if killed.dest_id is not None:
            self.follow_up(killed)
        return killed

    async def _payload_had_ended(self, job: Job) -> bool:
        """Kill the payload of a job, and return whether it had already ended by itself."""
        client = self.clients.of(job)
        if client is None or job.dest_id is None:
            raise ClientUnreachable(f"{job.client} is no longer one of the configured clients")
        try:
            payload = await client.transport.kill(job.dest_id)
            reach(Point.SERVER_PAYLOAD_KILLED)
        except PayloadLost:
            # The client was restarted, and killed all processes of its previous run.
            return False
        return (
            payload is not None
            and payload.status.has_ended
            and payload.status not in (PayloadStatus.KILLED, PayloadStatus.CLEANED)
        )
