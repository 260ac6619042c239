"""Contract of the job store: its operations, and the values that go in and come out.

Each implementation is a package next to this module. The tests in ``tests/store`` run against all
of them. Rules that hold for every implementation:

- Each change of a job is one compare-and-set on its status. A change that follows from a message of
  a client also compares the attempt, so that a late message never changes a later attempt.
- A *durable* change survives a power cut: it is flushed before subscribers are notified of it and
  before the call that made it returns. Durable are the creation and the claim of a job, the request
  to terminate it, the end of an attempt, and every change that ends the job or its output. All
  other changes survive a crash of the server; if a power cut undoes them, the server derives them
  again from the clients.
- An end of a job is also applied to the jobs that wait for it (``Job.after_success``,
  ``Job.after_end``): in the same transaction they wait for one job less, or fail, and so do those
  that wait for them. Only a long chain is continued in further transactions, also after a restart.
- A change that was begun is completed even if its caller is cancelled.
- Every method may raise ``StoreError``. Methods that write raise ``StorageFull`` if the disk of the
  database is full; nothing of that change is kept.
- Times are seconds since the epoch. A client is identified by its name (``Job.client``).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from job_orchestrator.common.status import JobStatus
from job_orchestrator.server.model import (
    Job,
    JobOptions,
    StoredOutput,
    UserLimits,
)
from job_orchestrator.server.store.identities import IdentityStore
from job_orchestrator.server.store.installation import Installation
from job_orchestrator.server.store.lists import JobLists
from job_orchestrator.server.store.queue import Claim, JobQueue, Offer
from job_orchestrator.server.store.registrations import Registrations

MAX_EVENTS = 1000
"""Events that ``JobEvents.between`` returns if no other limit is given."""

NO_OPTIONS = JobOptions()
NO_LIMITS = UserLimits()

Subscriber = Callable[[Job], None]
"""Function that is called in the event loop with a job that has changed. It must not block."""


@dataclass(frozen=True)
class JobEvent:
    """A change to ``status``, with its reason ``why``. ``job`` is the job as it is now."""

    id: int
    at: float
    status: JobStatus
    why: str
    job: Job


@dataclass(frozen=True)
class DueCallback:
    """A callback that is due. ``attempts`` counts the deliveries that have failed."""

    job: Job
    attempts: int


class JobEvents(Protocol):
    """Reads the event log: the status changes of all jobs, numbered in commit order.

    Numbers only grow, and have gaps. A number is never used again, not even if a power cut has
    undone its event: readers may have received it.
    """

    async def last_id(self) -> int:
        """Return the number of the last event, 0 if there is none."""

    async def between(
        self, after: int, until: int, job_id: int | None = None, *, limit: int = MAX_EVENTS
    ) -> Sequence[JobEvent]:
        """Return the events after number ``after`` up to ``until``, of all jobs or of one.

        Returns the first ``limit`` of them, in order.
        """

    async def present(self, job_id: int) -> tuple[int, Job]:
        """Return the number of a job's last event, and the job at that moment.

        Raises ``JobNotFound``.
        """


class Outbox(Protocol):
    """Transactional outbox of callbacks.

    The transaction that ends a job with a callback URL adds a row, so that an end is neither
    forgotten nor announced without having happened. The row stays until ``done``.
    """

    async def due(self, limit: int) -> Sequence[DueCallback]:
        """Return the callbacks that are due now, longest due first."""

    async def done(self, job_id: int) -> None:
        """Remove a callback, because it was delivered or given up."""

    async def later(self, job_id: int, delay_s: float) -> None:
        """Count a failed delivery. The callback is due again in ``delay_s``."""


class AbandonedKeys(Protocol):
    """Keys of abandoned attempts: the client may still run them.

    A key is added in the transaction that abandons the attempt (see ``JobStore.requeue``).
    """

    async def of(self, client: str, within_s: float) -> set[str]:
        """Return the keys of a client. Keys of any client older than ``within_s`` are removed."""

    async def forget(self, client: str, key: str, *, acknowledge: int | None = None) -> None:
        """Remove a key, because the client no longer runs the attempt.

        ``acknowledge`` is the payload of the attempt: its acknowledgement is added in the same
        transaction.
        """


class Acknowledgements(Protocol):
    """Payloads that their clients may remove, and have not confirmed yet.

    The transaction that ends a job adds its payload (see ``JobStore.transition``), so that no copy
    of results stays on a client because the server crashed.
    """

    async def of(self, client: str, within_s: float) -> set[int]:
        """Return the payloads of a client. Those older than ``within_s`` are removed."""

    async def add(self, client: str, payload_id: int) -> None:
        """Add a payload whose job has ended before."""

    async def confirmed(self, client: str, payload_ids: Sequence[int]) -> None:
        """Remove payloads, because the client has confirmed their acknowledgement."""


class JobStore(Protocol):
    """Database of all jobs."""

    @property
    def lists(self) -> JobLists:
        """Lists, histories and counts."""

    @property
    def queue(self) -> JobQueue:
        """Queued jobs, and the users who wait."""

    @property
    def events(self) -> JobEvents:
        """Event log."""

    @property
    def outbox(self) -> Outbox:
        """Callbacks that are not delivered yet."""

    @property
    def abandoned(self) -> AbandonedKeys:
        """Keys of abandoned attempts."""

    @property
    def identities(self) -> IdentityStore:
        """Users of trusted issuers."""

    @property
    def installation(self) -> Installation:
        """Identity of this database."""

    @property
    def acknowledgements(self) -> Acknowledgements:
        """Payloads that their clients may remove."""

    @property
    def registrations(self) -> Registrations:
        """Clients that have registered themselves, and those that are drained."""

    def subscribe(self, subscriber: Subscriber, *, status_changes_only: bool = False) -> None:
        """Notify ``subscriber`` of every job that is created or changed.

        Notifications follow the commits, in commit order, and precede the return of the call that
        made the change. For each job, subscribers are called in the order of subscription. If the
        implementation allows several servers, the changes of other servers are notified as well.

        With ``status_changes_only``, changes within a status (a request to terminate, output that
        was fetched after the end) are left out.
        """

    async def create(
        self,
        uuid: str,
        user_id: int,
        service: str,
        options: JobOptions = NO_OPTIONS,
        *,
        input_bytes: int = 0,
        inputs: bytes | None = None,
        limits: UserLimits = NO_LIMITS,
    ) -> Job:
        """Add a queued job, whose files are stored under ``uuid`` or are ``inputs``.

        ``inputs`` (see ``small_files``) are stored in the transaction that adds the job. A claim
        that is called before this coroutine next yields sees the job, in the same transaction.
        If the user has a job with the same idempotency key, that job is returned and nothing is
        added; its ``uuid`` is a different one. A job that needs one that ended in another state
        than Completed is Failed immediately. Raises ``InvalidSubmission`` for a dependency that is
        no job of the user; ``TooManyQueued``, ``TooMuchStored`` or ``RateExceeded`` if the job
        would exceed the user's ``limits``.
        """

    async def check_limits(
        self, user_id: int, input_bytes: int, key: str | None, limits: UserLimits
    ) -> None:
        """Raise the error that ``create`` would raise now for a job of this size.

        Concurrent submissions may still use up the limit before ``create`` is called.
        """

    async def get(self, job_id: int) -> Job:
        """Return a job. Raises ``JobNotFound``."""

    async def inputs(self, job: Job) -> bytes | None:
        """Return the inputs that were stored with the job; None if they are elsewhere or gone."""

    async def result(self, job: Job) -> bytes | None:
        """Return the results that were stored with the job; None if they are elsewhere or gone."""

    async def transition(
        self,
        job: Job,
        wanted: JobStatus,
        message: str,
        *,
        dest_id: int | None = None,
        exit_code: int | None = None,
        output: StoredOutput | None = None,
        acknowledge: int | None = None,
        at: float | None = None,
        run_s: float | None = None,
        deferred: bool = False,
    ) -> Job:
        """Change the status of ``job`` to ``wanted``, with ``message`` as the reason.

        Processing is never wanted: only ``claim`` gives a job a slot.

        Fields that are None keep their values. ``output`` is the output that is now stored; its
        ``content``, if it has one, is stored in the same transaction. ``acknowledge`` is a payload
        of the job's client that is not needed any more: its acknowledgement is added in the same
        transaction. Cleaned removes inputs and results that are stored with the job.

        ``at`` is the time of the change, if it happened before this call; it is neither recorded as
        later than now, nor as earlier than the previous change. ``run_s`` is how long the script
        ran, by the clock of its client. ``deferred`` allows a
        short delay, to share a transaction with another change; later changes of the job are still
        written after this one. Raises ``TransitionRefused``, with the present status, if that
        status does not allow the change or if the job is in another attempt.
        """

    async def explain(self, job: Job, message: str) -> None:
        """Replace the reason of a Submitted or Running job.

        That is an event without a change of status. Has no effect if status, attempt or reason of
        the job have changed.
        """

    async def requeue(
        self,
        job: Job,
        why: str,
        *,
        delay_s: float,
        max_attempts: int,
        counts: bool,
        may_still_run: bool,
    ) -> Job:
        """End the present attempt and return the job to the queue.

        The next attempt begins after ``delay_s`` at the earliest. The job fails instead if this
        attempt counts (``counts``) and is number ``max_attempts`` of those that do. It is Killed
        instead if its termination was requested. With ``may_still_run``, the attempt is recorded as
        abandoned in the same transaction. Raises ``TransitionRefused``.
        """

    async def request_kill(self, job_id: int) -> Job:
        """Record that a job must be terminated, unless it has ended. Return the job.

        Raises ``JobNotFound``.
        """

    async def change_queued(
        self, job_id: int, *, held: bool | None = None, priority: int | None = None
    ) -> Job:
        """Hold or release a queued job, or change its priority; None leaves it as it is.

        Durable. Raises ``JobNotFound``; ``JobNotQueued`` if the job has left the queue.
        """

    async def keep_output(self, job: Job, output: StoredOutput) -> None:
        """Record that the output of an ended job is stored, or store its ``content``.

        The acknowledgement of the job's payload is added in the same transaction.
        """

    async def client_lost(self, client: str, why: str) -> Sequence[Job]:
        """Mark as Unknown the jobs of a client that can't be reached. Return those jobs."""

    async def claim(self, offers: Mapping[str, Offer]) -> Mapping[str, Claim]:
        """Claim queued jobs for the services in ``offers``. Each gets a new nonce.

        Counting, decision and claim are one transaction: no limit is exceeded and no job is claimed
        twice, however many callers claim concurrently. Returns a claim for each offered service
        that has queued jobs.
        """

    async def active(self, client: str) -> Sequence[Job]:
        """Return the active jobs of a client, including those that are being sent to it."""

    async def processing(self) -> Sequence[Job]:
        """Return the jobs that are claimed and not known to have reached their client."""

    async def unknown_for(self, seconds: float, of: Mapping[str, float]) -> Sequence[Job]:
        """Return jobs that have been Unknown for longer than ``seconds``, at most 1000.

        ``of`` has other times, by service.
        """

    async def dispatched_to(self) -> Sequence[str]:
        """Return the names of all clients that have a job, configured or not."""

    async def killed_without_output(self, within_s: float) -> Sequence[Job]:
        """Return jobs that were Killed within the last seconds and whose output was not fetched.

        Only jobs that had reached their client, latest first, at most 100.
        """

    async def ended_before(self, seconds_ago: float, limit: int) -> Sequence[Job]:
        """Return ended jobs whose files are due for removal, oldest end first."""

    async def with_uuids(self, uuids: Sequence[str]) -> Mapping[str, Job]:
        """Return the jobs that have one of these uuids, by uuid."""

    async def known(self, uuids: Sequence[str]) -> set[str]:
        """Return those of ``uuids`` that belong to a job whose files are kept."""

    async def release_space(self) -> None:
        """Return storage that is no longer used to the operating system, except a reserve."""

    async def check(self) -> None:
        """Raise ``StoreError`` if the database can't be written."""
