"""What jo-server tells, as it is read. Unknown fields are ignored; times are aware UTC."""

from datetime import datetime
from typing import TypeVar

import msgspec

from job_orchestrator.common.status import FINAL_JOB, JobStatus
from job_orchestrator.sdk.errors import NotAJobServer

T = TypeVar("T")


class Submitted(msgspec.Struct, frozen=True):
    """Answer to a submit. ``repeated``: the job was there already, from an earlier try."""

    id: int
    status: JobStatus
    message: str
    repeated: bool = False


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A job as lists and events show it.

    ``message`` says why the job is in its state; ``attempt`` counts how often it was handed to a
    client; ``client`` is the upload URL of the one that has it; ``started_at`` is when its script
    first ran.
    """

    id: int
    user_id: int
    service: str
    status: JobStatus
    message: str = ""
    name: str | None = None
    tag: str | None = None
    priority: int = 0
    attempt: int = 0
    exit_code: int | None = None
    client: str | None = None
    time_limit_s: float | None = None
    created_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    has_output: bool = False
    output_bytes: int | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing of it will change any more (but that its files are removed one day)."""
        return self.status in FINAL_JOB or self.status is JobStatus.CLEANED


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One change of state: from ``before`` (None: the upload) ``to``, for ``seconds`` (so far)."""

    at: datetime
    before: JobStatus | None = msgspec.field(name="from", default=None)
    to: JobStatus
    why: str = ""
    seconds: float | None = None


class Place(msgspec.Struct, frozen=True):
    """A queued job's place: so many of its user's jobs are ``ahead``."""

    ahead: int
    estimated_wait_s: float | None = None


class JobDetail(Job, frozen=True, kw_only=True):
    """A job with its history, and its place while it is queued."""

    history: list[Step] = []
    queue: Place | None = None


class ResultFile(msgspec.Struct, frozen=True):
    """A file in the results of a job, ``size`` in bytes."""

    path: str
    size: int


class ResultFiles(msgspec.Struct, frozen=True):
    """The files in the results of a job; ``truncated``: there are more."""

    files: list[ResultFile]
    truncated: bool = False


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """A service of the server: its limits, its use, and how it is.

    ``state`` is ``ok``, ``degraded`` (some of its clients are away) or ``down``; ``problem`` says
    why.
    """

    name: str
    runs_per_user: int
    max_runs: int
    max_attempts: int
    time_limit_s: float | None = None
    active: int = 0
    queued: int = 0
    state: str = "ok"
    problem: str | None = None
    clients: list[str] = []


class ComputeClient(msgspec.Struct, frozen=True, kw_only=True):
    """A jo-client as the server sees it; numbers are None where it doesn't know.

    ``state`` is ``connected``, ``polled`` (it has no event stream), ``unreachable`` or
    ``unknown``. ``cpu`` and ``memory`` are per cent of its machine.
    """

    url: str
    services: list[str] = []
    state: str = "unknown"
    problem: str | None = None
    slots: int | None = None
    running: int | None = None
    waiting: int | None = None
    cpu: float | None = None
    memory: float | None = None
    jobs: int | None = None
    version: str | None = None


class Minute(msgspec.Struct, frozen=True, kw_only=True):
    """What happened in one minute; waiting times in seconds, None if nothing started."""

    at: datetime
    submitted: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    wait_s_mean: float | None = None
    wait_s_max: float | None = None


class Identity(msgspec.Struct, frozen=True):
    """Who the server takes the caller for. ``auth`` False: it asks nobody for a token."""

    user_id: int | None = None
    admin: bool = False
    auth: bool = False


class Health(msgspec.Struct, frozen=True):
    """The server can do its work; ``version`` is its own.

    ``ahead_s``: by how many seconds its clock is ahead of this machine's, to about a second; None
    if it doesn't tell its time.
    """

    status: str
    version: str = ""
    ahead_s: float | None = None


Change = Job | list[Service] | list[ComputeClient]
"""What an event of the server's stream tells: a job's new state, or how services or clients are."""


class JobPage(msgspec.Struct, frozen=True):
    """A part of a list of jobs; ``next`` asks for the following one, None: there is none."""

    jobs: list[Job]
    next: str | int | None = None


class ServiceList(msgspec.Struct, frozen=True):
    """Answer of ``GET /services``."""

    services: list[Service]


class ClientList(msgspec.Struct, frozen=True):
    """Answer of ``GET /clients``."""

    clients: list[ComputeClient]


class Stats(msgspec.Struct, frozen=True):
    """Answer of ``GET /stats``: the last hour, oldest minute first."""

    minutes: list[Minute]


def decode(body: bytes | str, kind: type[T], what: str) -> T:
    """Read an answer. Raises ``NotAJobServer`` if it is no such thing."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise NotAJobServer(
            f"{what} answered with something else than expected ({error}): "
            "is this the URL of a jo-server, and is its version not older than this program?"
        ) from error
