"""The values that the server works with: jobs, services, limits. No I/O, no SQL, no HTTP."""

from dataclasses import dataclass

from job_orchestrator.common.status import JobStatus
from job_orchestrator.server.errors import TooManyQueued, TooMuchStored

MIN_USER_ID, MAX_USER_ID = -(2**31), 2**31 - 1


@dataclass(frozen=True)
class ClientUrls:
    """Where one client of a service is reached. None ends with a slash."""

    upload: str
    download: str
    terminate: str

    @property
    def partial(self) -> str:
        """Results whatever the state: beside the download URL."""
        return f"{self.download}_partial"

    @property
    def events(self) -> str:
        """The event stream: beside the upload URL."""
        return f"{self.upload.rpartition('/')[0]}/events"

    @property
    def logs(self) -> str:
        """What scripts say: beside the upload URL."""
        return f"{self.upload.rpartition('/')[0]}/logs"

    @property
    def load(self) -> str:
        """The CPU reading: beside the upload URL."""
        return f"{self.upload.rpartition('/')[0]}/load"


@dataclass(frozen=True)
class Service:
    """A service and its limits, counted in jobs.

    ``max_attempts`` is how often a dispatch may fail before the job does, ``time_limit_s`` how long
    a job may run, None: as long as it takes.
    """

    name: str
    clients: tuple[ClientUrls, ...]
    runs_per_user: int
    max_runs: int
    max_attempts: int
    time_limit_s: float | None


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
