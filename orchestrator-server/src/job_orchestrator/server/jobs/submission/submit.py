"""Submission of jobs.

A submission that was answered survives a power cut. Small files are written in the transaction of
the row. Others are stored first, then the row is written, each durably: a crash in between leaves
files without a row, which are removed at the next start. There is never a row without its files.
"""

import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple, Protocol

from job_orchestrator.common.errors import TooLarge
from job_orchestrator.common.logs.context import logging_about
from job_orchestrator.common.messages.resources import Resources
from job_orchestrator.common.protocol.small_files import encode_files
from job_orchestrator.common.runtime.fault_injection import Point, reach
from job_orchestrator.common.runtime.limiter import KeyedLimiter
from job_orchestrator.common.runtime.threads import in_thread, run_to_completion
from job_orchestrator.common.storage.form_receiver import BodyStream, receive_form
from job_orchestrator.common.storage.form_writer import FormLimits, ReceivedForm
from job_orchestrator.server.errors import InvalidSubmission, TooManyUploads
from job_orchestrator.server.files.base import JobFiles
from job_orchestrator.server.jobs.submission.form import (
    JobForm,
    check_machines,
    check_priority,
    read_job_form,
    with_defaults,
)
from job_orchestrator.server.model import CallbackRules, Job, JobOptions, Principal, Service
from job_orchestrator.server.scheduling.rules import Rules
from job_orchestrator.server.store.base import JobStore
from job_orchestrator.server.store.limits import UserLimits

logger = logging.getLogger(__name__)

MAX_UPLOADS = 32
"""Concurrent uploads of one user. An upload occupies disk space before any limit can reject it."""


class Submitted(NamedTuple):
    """The job of a submission, or the first task of its array.

    ``is_new`` is false if its idempotency key was used before.
    """

    job: Job
    is_new: bool


class BeforeCreation(Protocol):
    """Function that is called just before the row of a job, or an array, is written."""

    def __call__(self, service: str, options: JobOptions, *, is_array: bool) -> None:
        """Prepare for a job of a service."""


class _ReceivedJob(NamedTuple):
    """A submission. Its files have ``input_bytes``; they are ``inputs``, or else stored."""

    form: JobForm
    input_bytes: int
    inputs: bytes | None


@dataclass(frozen=True)
class JobSubmission:
    """Accepts uploaded jobs. Files of at most ``inline_bytes`` are stored with the row.

    ``max_upload_bytes`` returns the size of files that the clients of a service take, None if that
    is not known, ``offers`` what each of them offers, nothing if that is not known of one, and
    ``refuses_tasks`` whether none of them runs tasks of arrays, which have ``max_array_tasks``.
    ``before_creation`` is called just before the row of a job is written, so that the
    dispatcher can claim the job in the same transaction.
    """

    store: JobStore
    files: JobFiles
    services: Mapping[str, Service]
    form_limits: FormLimits
    inline_bytes: int
    user_limits: UserLimits
    rules: Rules
    callback_rules: CallbackRules
    before_creation: BeforeCreation
    max_array_tasks: int
    refuses_tasks: Callable[[Service], bool] = lambda _: False
    max_upload_bytes: Callable[[Service], int | None] = lambda _: None
    offers: Callable[[Service], Sequence[Resources]] = lambda _: ()
    uploads: KeyedLimiter[int | None] = field(default_factory=KeyedLimiter)

    async def submit(
        self,
        body: BodyStream,
        content_type: str,
        principal: Principal,
        idempotency_key: str | None = None,
        *,
        least_bytes: int = 0,
    ) -> Submitted:
        """Receive an upload and create its job.

        On return the job is durable; after an error nothing of the upload is left. A repeat of an
        ``idempotency_key`` by the same user returns the existing job, and keeps nothing of the
        repeated upload.

        ``least_bytes`` is a lower bound of the size of the files, 0 if it is unknown: an upload
        that exceeds the limits of a user with a token, or of all services, is rejected before it is
        received.

        Raises ``Forbidden`` if the form names another user; ``BadRequest`` and its subclasses,
        ``BodyTimeout``, ``StorageFull``, ``TooManyQueued``, ``TooMuchStored``, ``TooManyUploads``.
        """
        self._check_least_bytes(least_bytes)
        with self._upload_slot(principal):
            if principal.user_id is not None:
                await self.store.check_limits(
                    principal.user_id,
                    least_bytes,
                    idempotency_key,
                    self._limits_of(principal.user_id),
                )
            job_uuid = str(uuid.uuid4())
            received = await self._receive(job_uuid, body, content_type, principal, idempotency_key)
            # A row that is being written cannot be taken back: if the web app disconnects now,
            # the job is created nevertheless.
            if received.inputs is not None:
                submitted = await self._create(job_uuid, received)
            else:
                submitted = await run_to_completion(self._create_with_files(job_uuid, received))
        reach(Point.SERVER_JOB_CREATED)
        job = submitted.job
        with logging_about(job=job.id, user=job.user_id, service=job.service):
            if not submitted.is_new:
                logger.info("Job %d was submitted again with its idempotency key", job.id)
            elif job.array_id is not None:
                logger.info("Array %d has %d tasks", job.array_id, job.array_size)
            else:
                logger.info("Job %d is %s", job.id, job.status)
        return submitted

    def _upload_slot(self, principal: Principal) -> AbstractContextManager[None]:
        """Count an upload of a user. Administrators upload for many users, and have no limit."""
        if principal.is_admin:
            return nullcontext()
        return self.uploads.slot(
            MAX_UPLOADS,
            principal.user_id,
            lambda: TooManyUploads(
                f"User {principal.user_id} is sending {MAX_UPLOADS} jobs already;"
                " try again when one has arrived"
            ),
        )

    async def _receive(
        self,
        job_uuid: str,
        body: BodyStream,
        content_type: str,
        principal: Principal,
        idempotency_key: str | None,
    ) -> _ReceivedJob:
        """Receive the form, and store its files unless they are small.

        A small form is parsed and checked here. A larger one that fits into one block is parsed,
        checked and stored in one thread hop.
        """

        def accept(form: ReceivedForm) -> _ReceivedJob:
            job_form = self._read_form(form, principal, idempotency_key)
            reach(Point.SERVER_FORM_WHOLE)
            inputs = None if form.small is None else encode_files(form.small)
            if inputs is None:
                self.files.accept(job_uuid)
            return _ReceivedJob(job_form, sum(form.files.values()), inputs)

        try:
            received = await receive_form(
                body,
                content_type,
                partial(self.files.staging_folder, job_uuid),
                self.form_limits,
                accept,
                small_bytes=self.inline_bytes,
                write_behind=True,
            )
            reach(Point.SERVER_FILES_ACCEPTED)
        except BaseException:
            await in_thread(self.files.discard, job_uuid)
            raise
        return received

    async def _create_with_files(self, job_uuid: str, received: _ReceivedJob) -> Submitted:
        """Write the row of a job. The stored files are removed unless the row is theirs."""
        submitted: Submitted | None = None
        try:
            submitted = await self._create(job_uuid, received)
        finally:
            if submitted is None or not submitted.is_new:
                await in_thread(self.files.discard, job_uuid)
        return submitted

    async def _create(self, job_uuid: str, received: _ReceivedJob) -> Submitted:
        form, limits = received.form, self._limits_of(received.form.user_id)
        self.before_creation(form.service, form.options, is_array=form.array is not None)
        if form.array is not None:
            return Submitted(
                *await self.store.arrays.create(
                    job_uuid,
                    form.user_id,
                    form.service,
                    form.options,
                    form.array,
                    input_bytes=received.input_bytes,
                    inputs=received.inputs,
                    limits=limits,
                )
            )
        job = await self.store.create(
            job_uuid,
            form.user_id,
            form.service,
            form.options,
            input_bytes=received.input_bytes,
            inputs=received.inputs,
            limits=limits,
        )
        return Submitted(job, job.uuid == job_uuid)

    def _read_form(
        self, form: ReceivedForm, principal: Principal, idempotency_key: str | None
    ) -> JobForm:
        """Check a form. Raises ``InvalidSubmission``, ``Forbidden``, ``TooLarge``."""
        job_form = read_job_form(
            form, principal, idempotency_key, self.callback_rules, self.max_array_tasks
        )
        if not job_form.service:
            raise InvalidSubmission("Missing service field")
        if job_form.service not in self.services:
            raise InvalidSubmission("Invalid service")
        if "run.sh" not in form.files:
            raise InvalidSubmission("Missing run.sh")
        service = self.services[job_form.service]
        self._check_size(service, sum(form.files.values()))
        wanted = with_defaults(job_form.options.wanted, service)
        check_machines(wanted, service, self.offers(service))
        if job_form.array is not None and self.refuses_tasks(service):
            raise InvalidSubmission(
                f"No machine of the service {service.name} runs arrays; an administrator must"
                " update jo-client there"
            )
        if not principal.is_admin:
            check_priority(job_form.options.priority, self.rules.max_priority(job_form.user_id))
        return replace(job_form, options=replace(job_form.options, wanted=wanted))

    def _limits_of(self, user_id: int) -> UserLimits:
        return replace(self.user_limits, rate=self.rules.submit_rate(user_id))

    def _check_least_bytes(self, least_bytes: int) -> None:
        """Raise ``TooLarge`` for an upload that the clients of no service take."""
        if not least_bytes:
            return
        limits = [self.max_upload_bytes(service) for service in self.services.values()]
        known = [limit for limit in limits if limit is not None]
        if known and len(known) == len(limits) and least_bytes > max(known):
            raise TooLarge(
                f"Files too large: at most {max(known)} bytes in all (MAX_UPLOAD_SIZE of the"
                " machines)"
            )

    def _check_size(self, service: Service, input_bytes: int) -> None:
        """Raise ``TooLarge`` for files that the server takes and the service's clients do not."""
        limit = self.max_upload_bytes(service)
        if limit is not None and input_bytes > limit:
            raise TooLarge(
                f"Files too large: at most {limit} bytes in all for the service {service.name}"
                " (MAX_UPLOAD_SIZE of its machines)"
            )
