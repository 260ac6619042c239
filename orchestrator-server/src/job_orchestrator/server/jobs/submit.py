"""What a web app asks for: submit a job, wait for it, read its results, terminate it. No HTTP here.

The 201 of a submission promises that the job survives: files first, flushed and renamed into place,
then the row, in a transaction that is flushed too. A crash in between leaves a folder without a
row, which the cleaner removes; never a row without its files.
"""

import asyncio
import logging
import uuid
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from job_orchestrator.common.logs.context import logging_about
from job_orchestrator.common.messages import ResultFile, ResultFiles
from job_orchestrator.common.protocol.multipart_reader import (
    BodyStream,
    FormLimits,
    ReceivedForm,
    receive_form,
)
from job_orchestrator.common.runtime.fault_injection import Point, reach
from job_orchestrator.common.runtime.limiter import AtOnce
from job_orchestrator.common.runtime.threads import in_thread, to_end
from job_orchestrator.common.status import (
    FINAL_JOB,
    FINAL_PAYLOAD,
    JobStatus,
    PayloadStatus,
    TransitionRefused,
)
from job_orchestrator.server.auth.principal import Principal
from job_orchestrator.server.callbacks.rules import CallbackRules
from job_orchestrator.server.clients.registry import Client, ClientPool
from job_orchestrator.server.errors import (
    ClientUnreachable,
    InvalidSubmission,
    JobAlreadyEnded,
    OutputNotFound,
    PayloadLost,
    TerminationPending,
    TooManyUploads,
)
from job_orchestrator.server.files.folder import JobFiles
from job_orchestrator.server.jobs.changes import ChangeFeed
from job_orchestrator.server.jobs.form import JobForm, read_job_form
from job_orchestrator.server.jobs.small_results import SmallResult, SmallResults
from job_orchestrator.server.model import Job, Service, UserLimits
from job_orchestrator.server.store.base import MAX_PLACE
from job_orchestrator.server.store.sqlite.jobs import JobStore

logger = logging.getLogger(__name__)

TERMINATE_TIMEOUT_S = 30.0

MAX_UPLOADS = 32
"""Of one user at once: what arrives takes room before anybody knows whether it may stay."""


@dataclass(frozen=True)
class Submission:
    """The operations, on what they need.

    ``follow_up`` is called for each job whose client has something to fetch: a result, or the
    output of what was killed.
    """

    store: JobStore
    files: JobFiles
    small_results: SmallResults
    feed: ChangeFeed
    pool: ClientPool
    services: Mapping[str, Service]
    limits: FormLimits
    user_limits: UserLimits
    callback_rules: CallbackRules
    follow_up: Callable[[Job], None]
    uploads: AtOnce[int | None] = field(default_factory=AtOnce)

    async def submit(
        self,
        body: BodyStream,
        content_type: str,
        principal: Principal,
        idempotency_key: str | None = None,
        *,
        least_bytes: int = 0,
    ) -> tuple[Job, bool]:
        """Take a job in. On return it is durable; on any error nothing of it is left.

        ``least_bytes`` are what its files have at least, if that is known: what the limits of a
        user with a token don't let in need not come first. A user need not name themselves. Returns
        the job, and whether it is new: the same ``idempotency_key`` of the same user gives the job
        that there is, and nothing of the repeat is kept. Raises ``Forbidden`` if they name somebody
        else; ``BadRequest`` and its kinds, ``BodyTimeout``, ``StorageFull``; ``TooManyQueued``,
        ``TooMuchStored``, ``TooManyUploads``.
        """
        with self._uploads_of(principal):
            if principal.user_id is not None:
                await self.store.check_limits(
                    principal.user_id, least_bytes, idempotency_key, self.user_limits
                )
            return await self._submit(body, content_type, principal, idempotency_key)

    def _uploads_of(self, principal: Principal) -> AbstractContextManager[None]:
        """Count an upload of a user; administrators send for many."""
        if principal.is_admin:
            return nullcontext()
        return self.uploads.one_of(
            MAX_UPLOADS,
            principal.user_id,
            lambda: TooManyUploads(
                f"User {principal.user_id} is sending {MAX_UPLOADS} jobs already;"
                " try again when one has arrived"
            ),
        )

    async def _submit(
        self,
        body: BodyStream,
        content_type: str,
        principal: Principal,
        idempotency_key: str | None,
    ) -> tuple[Job, bool]:
        name = str(uuid.uuid4())
        accepted: list[Job] = []

        def complete(form: ReceivedForm) -> tuple[JobForm, int]:
            order = self._order(form, principal, idempotency_key)
            reach(Point.SERVER_FORM_WHOLE)
            self.files.accept(name)
            return order, sum(form.files.values())

        async def create(order: JobForm, size: int) -> None:
            accepted.append(
                await self.store.create(
                    name,
                    order.user_id,
                    order.service,
                    order.options,
                    input_bytes=size,
                    limits=self.user_limits,
                )
            )

        try:
            folder = self.files.incoming(name)
            order = await receive_form(
                body, content_type, folder, self.limits, complete, write_behind=True
            )
            reach(Point.SERVER_FILES_ACCEPTED)
            await to_end(create(*order))
            reach(Point.SERVER_JOB_CREATED)
        finally:
            # Also when the web app has gone meanwhile: a job whose row is written stays.
            if not (accepted and accepted[0].uuid == name):
                await in_thread(self.files.discard, name)
        job, is_new = accepted[0], accepted[0].uuid == name
        with logging_about(job=job.id, user=job.user_id, service=job.service):
            logger.info("Job %d is %s", job.id, job.status if is_new else "asked for once more")
        return job, is_new

    def _order(
        self, form: ReceivedForm, principal: Principal, idempotency_key: str | None
    ) -> JobForm:
        """What a form asks for. Raises ``InvalidSubmission``, ``Forbidden``."""
        order = read_job_form(form, principal, idempotency_key, self.callback_rules)
        if not order.service:
            raise InvalidSubmission("Missing service field")
        if order.service not in self.services:
            raise InvalidSubmission("Invalid service")
        if "run.sh" not in form.files:
            raise InvalidSubmission("Missing run.sh")
        return order

    async def settled(self, job_id: int, wait_s: float) -> Job:
        """Return the job, if it has ended or when it does, but after ``wait_s`` as it then is.

        Raises ``JobNotFound``.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + wait_s
        with self.feed.following(job_id) as changes:
            job = await self.store.get(job_id)
            while job.status not in FINAL_JOB and job.status is not JobStatus.CLEANED:
                changed = await changes.wait(until - loop.time())
                if changed is None:
                    return job
                job = changed
            return job

    async def explain(self, job: Job) -> str:
        """Why a job is in its state, for its user."""
        if job.status is not JobStatus.QUEUED:
            return job.message
        ahead = await self.store.ahead(job)
        count = f"{MAX_PLACE} or more" if ahead == MAX_PLACE else str(ahead)
        why = [
            f"{count} of this user's jobs for {job.service} are ahead" if ahead else "Next in line"
        ]
        service = self.services.get(job.service)
        problem = self.pool.problem(service) if service else "This service is not configured now"
        why += [text for text in (problem, job.message) if text]
        return "; ".join(dict.fromkeys(why))

    def result(self, job: Job) -> Path:
        """The kept output of a job. Raises ``OutputNotFound``."""
        _check_has_output(job)
        return self.files.result(job)

    async def small_result(self, job: Job) -> SmallResult | None:
        """The content of the kept output; None if it is not small. Raises ``OutputNotFound``."""
        _check_has_output(job)
        try:
            return await self.small_results.read(job)
        except FileNotFoundError as error:
            raise OutputNotFound(
                f"The results of job {job.id} are gone from the server's disk"
            ) from error

    def listed(self, job: Job) -> ResultFiles:
        """The files in the kept output of a job; blocks. Raises ``OutputNotFound``."""
        try:
            names, truncated = self.files.listed(self.result(job))
        except FileNotFoundError as error:
            raise OutputNotFound(
                f"The output of job {job.id} is gone from the server's disk"
            ) from error
        return ResultFiles([ResultFile(*each) for each in names], truncated)

    def payload_of(self, job: Job) -> tuple[Client, int]:
        """The client that has a job, and the payload's id. Raises ``OutputNotFound``."""
        if job.status is JobStatus.CLEANED:
            raise OutputNotFound(f"Job {job.id} is Cleaned: its files were removed")
        client = self.pool.get(job.client)
        if client is None or job.dest_id is None:
            raise OutputNotFound(f"Job {job.id} is {job.status} and has no output yet")
        return client, job.dest_id

    async def terminate(self, job_id: int) -> Job:
        """End a job; on return nothing of it runs any more.

        The wish is noted in the database first, so that it outlives a crash and reaches a job that
        is just changing hands. Raises ``JobNotFound``, ``JobAlreadyEnded``; ``ClientError`` or
        ``TerminationPending`` when its client doesn't answer (the job is then ended as soon as the
        client does).
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + TERMINATE_TIMEOUT_S
        with self.feed.following(job_id) as changes:
            job = await self.store.request_kill(job_id)
            reach(Point.SERVER_KILL_NOTED)
            if not job.kill_requested or job.status in FINAL_JOB:
                raise JobAlreadyEnded(job.id, job.status)
            while True:
                ended = await self._try_to_end(job)
                if ended is not None:
                    return ended
                changed = await changes.wait(until - loop.time())
                if changed is None:
                    raise TerminationPending(
                        f"Job {job.id} is being sent to a client that does not answer;"
                        " it is ended as soon as that does"
                    )
                job = changed

    async def _try_to_end(self, job: Job) -> Job | None:
        """End a job that stands still; None if it is changing hands: look again when it changed."""
        if job.status is JobStatus.KILLED:
            return job
        if job.status in FINAL_JOB or job.status is JobStatus.CLEANED:
            raise JobAlreadyEnded(job.id, job.status)
        if job.status is JobStatus.PROCESSING:
            return None
        if job.status is not JobStatus.QUEUED and await self._had_ended(job):
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

    async def _had_ended(self, job: Job) -> bool:
        """End the payload of a job; whether it had already ended by itself."""
        client = self.pool.get(job.client)
        if client is None or job.dest_id is None:
            raise ClientUnreachable(f"{job.client} is no longer one of the configured clients")
        try:
            payload = await client.api.kill(job.dest_id)
            reach(Point.SERVER_PAYLOAD_KILLED)
        except PayloadLost:
            # The client restarted since: it has ended what an earlier life of it left running.
            return False
        return (
            payload is not None
            and payload.status in FINAL_PAYLOAD
            and payload.status is not PayloadStatus.KILLED
        )


def _check_has_output(job: Job) -> None:
    if not job.has_output or job.status is JobStatus.CLEANED:
        raise OutputNotFound(f"Job {job.id} is {job.status} and has no output to download")
