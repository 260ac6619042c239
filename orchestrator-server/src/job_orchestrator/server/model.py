"""The values that the server works with: jobs, services, limits. No I/O, no SQL, no HTTP."""

from collections.abc import Mapping
from dataclasses import dataclass

from job_orchestrator.common.logs.context import REQUEST_ID
from job_orchestrator.common.status import JobStatus
from job_orchestrator.server.errors import TooManyQueued, TooMuchStored


@dataclass(frozen=True)
class ClientUrls:
    """URLs of one client of a service. They do not end with a slash."""

    upload: str
    download: str
    terminate: str

    @property
    def name(self) -> str:
        """Name that identifies a client which is configured by URL: its upload URL."""
        return self.upload

    @property
    def partial(self) -> str:
        """URL of the results in any state, next to the download URL."""
        return f"{self.download}_partial"

    @property
    def events(self) -> str:
        """URL of the event stream, next to the upload URL."""
        return f"{self.upload.rpartition('/')[0]}/events"

    @property
    def logs(self) -> str:
        """URL of the output of scripts, next to the upload URL."""
        return f"{self.upload.rpartition('/')[0]}/logs"

    @property
    def load(self) -> str:
        """URL of the CPU load, next to the upload URL."""
        return f"{self.upload.rpartition('/')[0]}/load"


@dataclass(frozen=True)
class Service:
    """A service and its limits, counted in jobs.

    ``max_attempts`` is how often a dispatch may fail before the job does, ``time_limit_s`` how long
    a job may run, None: as long as it takes.
    """

    name: str
    clients: tuple[ClientUrls, ...]
    runs_per_user: int = 5
    max_runs: int = 10
    max_attempts: int = 3
    time_limit_s: float | None = None

    @property
    def client_names(self) -> tuple[str, ...]:
        """Names of the clients that run this service."""
        return tuple(client.name for client in self.clients)


@dataclass(frozen=True)
class Job:
    """A row of ``jobs``, as it was when it was read. Times are seconds since the epoch.

    ``started_at`` is when it was first Running; ``input_bytes`` (the files as uploaded) and
    ``output_bytes`` (the ZIP) are None where an earlier version did not note them.
    """

    id: int
    uuid: str
    user_id: int
    service: str
    status: JobStatus
    message: str
    attempt: int
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

    @property
    def key(self) -> str:
        """The idempotency key of the present attempt: the same payload however often it is sent."""
        return f"{self.uuid}.{self.attempt}"

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
class JobOptions:
    """What a submission may say of its job beside its owner; all of it is optional.

    ``idempotency_key`` is the web app's: the same key of the same user is the same job.
    """

    name: str = ""
    tag: str = ""
    priority: int = 0
    time_limit_s: float | None = None
    callback_url: str | None = None
    idempotency_key: str | None = None


@dataclass(frozen=True)
class UserLimits:
    """Of one user, all services together; 0: none. ``max_stored`` in bytes, inputs and outputs."""

    max_queued: int = 0
    max_stored: int = 0

    @property
    def any(self) -> bool:
        """Whether there is a limit at all."""
        return bool(self.max_queued or self.max_stored)

    def problem(
        self, queued: int, stored: int, user_id: int, input_bytes: int
    ) -> TooManyQueued | TooMuchStored | None:
        """Why a user with so many jobs and bytes may not add a job; None if the user may."""
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
