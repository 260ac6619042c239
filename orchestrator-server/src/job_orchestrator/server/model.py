"""Values of the server: jobs, services, limits, principals. Without I/O, SQL and HTTP."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from job_orchestrator.common.errors import Forbidden
from job_orchestrator.common.logs.context import REQUEST_ID
from job_orchestrator.common.messages.resources import NOTHING, Resources
from job_orchestrator.common.protocol.selection import EVERYTHING, ResultKind, Selection
from job_orchestrator.common.status import JobStatus
from job_orchestrator.server.errors import RateExceeded, TooManyQueued, TooMuchStored

MIN_USER_ID, MAX_USER_ID = -(2**31), 2**31 - 1

MAX_PRIORITY = 100
"""Priorities of jobs are from minus this number to this number."""

MAX_JOB_ID = 2**63 - 1
"""Upper bound of job ids. As a cursor, it selects the first page of a list."""


@dataclass(frozen=True)
class ClientUrls:
    """URLs of one client of a service. They do not end with a slash."""

    upload: str
    download: str
    terminate: str
    registered_as: str = ""

    @property
    def name(self) -> str:
        """Name of the client: the one that it has registered with, else its upload URL."""
        return self.registered_as or self.upload

    @property
    def partial(self) -> str:
        """URL of the results in any state, next to the download URL."""
        return f"{self.download}_partial"

    def beside(self, route: str) -> str:
        """Return the URL of another route, next to the upload URL."""
        return f"{self.upload.rpartition('/')[0]}/{route}"


class Order(StrEnum):
    """Order of the queued jobs of a service."""

    FAIR = "fair"
    FIFO = "fifo"
    PRIORITY = "priority"


@dataclass(frozen=True)
class Service:
    """A service, its limits, and the order of its jobs.

    ``runs_per_user`` and ``max_runs`` limit the active jobs of each user and of the service. Up to
    ``burst`` a user may borrow slots that would stay idle; 0 means that nobody may.
    ``max_attempts`` is the number of failed attempts after which a job fails. ``time_limit_s``
    limits the run time of a job; None means without a limit. ``resources`` is what a job asks for
    that does not say so, ``max_resources`` the most that one may ask for; 0 there: any amount.
    ``weight`` is the share of slots relative to other services of the same clients.
    ``registered``: clients may register themselves for it. Jobs of a client that was silent for
    ``lost_after_s`` are lost; None: the time of all services.
    """

    name: str
    clients: tuple[ClientUrls, ...]
    runs_per_user: int
    max_runs: int
    max_attempts: int
    time_limit_s: float | None
    order: Order = Order.FAIR
    burst: int = 0
    resources: Resources = NOTHING
    max_resources: Resources = NOTHING
    weight: int = 1
    registered: bool = False
    lost_after_s: float | None = None

    @property
    def client_names(self) -> tuple[str, ...]:
        """Names of the clients that are configured for this service."""
        return tuple(client.name for client in self.clients)


@dataclass(frozen=True)
class Job:
    """A job, as it was when it was read from the store. Times are seconds since the epoch.

    - ``message`` is the reason for the status, for the user.
    - ``attempt`` numbers the attempts from 1, and is 0 before the first. ``nonce`` is random and
      new for each. ``failures`` counts those that count towards the maximum of the service.
    - ``not_before`` is the earliest time of the next attempt.
    - ``client`` is the name of the client that has the job, ``dest_id`` the payload's id there.
    - ``started_at`` is the time at which its present or last attempt was first Running.
    - ``held``: a queued job that does not start before its user releases it.
    - ``after_success`` and ``after_end`` are the ids of jobs that must complete, and that must end,
      before it starts. ``open_dependencies`` counts those that have not ended yet.
    - ``run_s`` is how many seconds its script ran, by the clock of the client; None if not known.
    - ``cpus``, ``memory_bytes`` and ``gpus`` are what it asks for in addition to a slot.
    - ``outputs`` and ``results`` select the files of the results (see ``selection``).
    - ``input_bytes`` is the size of the uploaded files, ``output_bytes`` that of the ZIP and
      ``output_sha256`` its digest. Each is None if it is not known.
    """

    id: int
    uuid: str
    user_id: int
    service: str
    status: JobStatus
    message: str
    attempt: int
    nonce: str
    failures: int
    not_before: float
    client: str | None
    dest_id: int | None
    exit_code: int | None
    has_output: bool
    kill_requested: bool
    created_at: float
    changed_at: float
    ended_at: float | None
    name: str
    tag: str
    priority: int
    time_limit_s: float | None
    callback_url: str | None
    started_at: float | None
    input_bytes: int | None
    output_bytes: int | None
    output_sha256: bytes | None
    outputs: tuple[str, ...] = ()
    results: ResultKind = ResultKind.ALL
    held: bool = False
    after_success: tuple[int, ...] = ()
    after_end: tuple[int, ...] = ()
    open_dependencies: int = 0
    cpus: float = 0.0
    memory_bytes: int = 0
    gpus: int = 0
    run_s: float | None = None

    @property
    def ran_s(self) -> float | None:
        """Seconds that the script of a job that has ended ran; None if that is not known."""
        if self.run_s is not None or self.started_at is None or self.ended_at is None:
            return self.run_s
        return max(self.ended_at - self.started_at, 0.0)

    @property
    def is_ready(self) -> bool:
        """True for a queued job that neither is on hold nor waits for other jobs."""
        return self.status is JobStatus.QUEUED and not (self.held or self.open_dependencies)

    @property
    def wanted(self) -> Resources:
        """Resources that the job asks for in addition to a slot."""
        if not (self.cpus or self.memory_bytes or self.gpus):
            return NOTHING
        return Resources(self.cpus, self.memory_bytes, self.gpus)

    def fields(self) -> list[tuple[str, str]]:
        """Return the form fields that its client gets with the files."""
        return [*self.selection.fields(), *self.wanted.fields()]

    @property
    def selection(self) -> Selection:
        """Selection of the files that its results have."""
        return Selection(self.outputs, self.results)

    @property
    def key(self) -> str:
        """Idempotency key of the present attempt: sending the job again never starts it twice.

        Attempts that were claimed before there were nonces have none.
        """
        key = f"{self.uuid}.{self.attempt}"
        return f"{key}.{self.nonce}" if self.nonce else key

    def with_changes(self, **changes: object) -> "Job":
        """Return a copy with other values of some fields.

        ``dataclasses.replace`` takes ten times as long: it sets the fields one by one.
        """
        job = object.__new__(Job)
        job.__dict__.update(self.__dict__, **changes)
        return job

    def log_fields(self) -> Mapping[str, object]:
        """Return the log fields of the present attempt.

        All requests of an attempt have one request id, which the client logs as well.
        """
        return {
            "job": self.id,
            "user": self.user_id,
            "service": self.service,
            "client": self.client,
            REQUEST_ID: f"job-{self.id}.{self.attempt}",
        }


@dataclass(frozen=True)
class StoredOutput:
    """The ZIP that was received from a client: its size in bytes, and its digest.

    ``content`` is the ZIP itself if it is small: it is stored with the state of the job. ``run_s``
    is how long the script ran that made it, None if the client did not say so.
    """

    size: int
    sha256: bytes
    content: bytes | None = None
    run_s: float | None = None


@dataclass(frozen=True)
class JobOptions:
    """Optional properties of a submission.

    ``idempotency_key`` is chosen by the portal: a user's submissions with the same key are one job.
    """

    name: str = ""
    tag: str = ""
    priority: int = 0
    time_limit_s: float | None = None
    callback_url: str | None = None
    idempotency_key: str | None = None
    selection: Selection = EVERYTHING
    after_success: tuple[int, ...] = ()
    after_end: tuple[int, ...] = ()
    wanted: Resources = NOTHING


@dataclass(frozen=True)
class JobFilter:
    """Selection of jobs for a list. None and () select all."""

    user_id: int | None = None
    service: str | None = None
    statuses: Sequence[JobStatus] = ()
    tag: str | None = None


@dataclass(frozen=True)
class CallbackRules:
    """Rules for the destinations of callbacks. Without ``patterns`` there are no callbacks.

    ``patterns`` match host names in lower case; ``*`` stands for any characters. ``allow_private``
    also allows addresses that are not on the public internet.
    """

    patterns: tuple[str, ...] = ()
    allow_private: bool = False


@dataclass(frozen=True)
class Rate:
    """Limit of jobs by time, as a token bucket.

    Each job takes a token. ``per_hour`` tokens are added in an hour, up to ``burst``.
    """

    per_hour: float
    burst: int

    def tokens_at(self, tokens: float, passed_s: float) -> float:
        """Return the tokens of a bucket ``passed_s`` after it had ``tokens``."""
        return min(tokens + max(passed_s, 0.0) * self.per_hour / 3600, float(self.burst))

    def wait_s(self, tokens: float, jobs: int = 1) -> float:
        """Return how long it takes until a bucket with ``tokens`` allows so many jobs."""
        return max(jobs - tokens, 0.0) * 3600 / self.per_hour

    def __str__(self) -> str:
        burst = f", {self.burst} in a row" if self.burst != self.per_hour else ""
        return f"{self.per_hour:g} jobs an hour{burst}"


@dataclass(frozen=True)
class UserLimits:
    """Limits of one user over all services; 0 means without a limit.

    ``max_queued`` counts queued jobs, ``max_stored`` the bytes of inputs and results. Submissions
    beyond ``rate`` are refused; None means that none are.
    """

    max_queued: int = 0
    max_stored: int = 0
    rate: Rate | None = None

    @property
    def any(self) -> bool:
        """True if there is a limit."""
        return bool(self.max_queued or self.max_stored or self.rate)

    def problem(
        self, queued: int, stored: int, tokens: float, user_id: int, input_bytes: int
    ) -> TooManyQueued | TooMuchStored | RateExceeded | None:
        """Return the error for a user with these counts who adds a job; None if it is allowed.

        ``tokens`` are those of ``rate``.
        """
        if self.rate is not None and tokens < 1:
            return RateExceeded(
                f"User {user_id} may send {self.rate}; try again later",
                math.ceil(self.rate.wait_s(tokens)),
            )
        if self.max_queued and queued >= self.max_queued:
            return TooManyQueued(
                f"User {user_id} has {queued} queued jobs, and may have {self.max_queued};"
                " wait until some have run"
            )
        if self.max_stored and stored + input_bytes > self.max_stored:
            return TooMuchStored(
                f"The files of user {user_id} take {stored} bytes, and may take {self.max_stored};"
                f" these have {input_bytes}. Results are removed some time after their job's end"
            )
        return None


@dataclass(frozen=True)
class Registration:
    """A client that has registered itself: its name, the services whose jobs it gets.

    ``identity`` tells it from another client of the same name. ``seen_at`` is when it was last
    connected.
    """

    name: str
    identity: str
    services: tuple[str, ...]
    seen_at: float


@dataclass(frozen=True)
class ClientGrant:
    """Permission of a client's token: to register for ``services``, as ``uses`` clients.

    None there: all services, and any number. ``token`` is the hash of the token.
    """

    services: frozenset[str] | None = None
    uses: int | None = None
    token: str = ""


@dataclass(frozen=True)
class Principal:
    """A user, or an administrator (``user_id`` None), in whose name a request is made.

    ``authenticated`` is False if no tokens are configured; then everybody is an administrator.
    ``grant`` is that of a client, which may do nothing else. ``name`` is the name of a user of an
    issuer.
    """

    user_id: int | None
    authenticated: bool = True
    grant: ClientGrant | None = None
    name: str = ""

    @property
    def is_admin(self) -> bool:
        """True for an administrator, who may see and do everything."""
        return self.user_id is None and self.grant is None

    def owns(self, user_id: int) -> bool:
        """Return whether the jobs of ``user_id`` may be seen, fetched and terminated."""
        return self.is_admin or self.user_id == user_id

    def narrow(self, user_id: int | None) -> int | None:
        """Restrict a request for the jobs of ``user_id`` (None: all users) to those allowed.

        Returns the user whose jobs may be listed, None for all. Raises ``Forbidden`` for another
        user, whether that user exists or not.
        """
        if self.is_admin:
            return user_id
        if user_id not in (None, self.user_id):
            raise Forbidden(f"This token is for user {self.user_id} only")
        return self.user_id


EVERYBODY = Principal(user_id=None, authenticated=False)
"""The principal of every request if no tokens are configured."""
