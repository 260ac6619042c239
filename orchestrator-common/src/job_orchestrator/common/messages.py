"""JSON bodies on the wire: one struct for each, used by jo-server, jo-client and the SDK.

Fields are only ever added: web apps, servers and clients of the documented contract read the same
bodies. ``encode`` writes every field, in the order of its struct. Decoding is lenient: unknown
fields are ignored, and a missing field gets its default, so that messages of older versions can be
read. Fields that end in ``_s`` are seconds. Times are aware UTC datetimes.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Self, TypeVar

import msgspec

from job_orchestrator.common.status import JobStatus, PayloadStatus

T = TypeVar("T")

StoredInteger = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
"""An integer that fits into a column of a database: 64 bits, signed."""


class WireTime(datetime):
    """A time that ``encode`` writes as ISO 8601 in UTC, always with milliseconds.

    msgspec writes a plain ``datetime`` with six digits, or without a fraction where that is zero.
    It hands subclasses of ``datetime`` to the hook of its encoder, which keeps the format.
    """

    @classmethod
    def at(cls, seconds: float) -> Self:
        """Return the time that is ``seconds`` after the epoch."""
        return cls.fromtimestamp(seconds, UTC)


class Pong(msgspec.Struct, frozen=True, omit_defaults=True):
    """Answer of ``GET /`` to programs, with the paths of the pages for people."""

    message: str
    dashboard: str = ""
    api: str = ""


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of ``GET /health`` of a service that can do its work."""

    version: str = ""
    status: str
    database: str = "ok"


class PersonalLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of a user over all services; ``jobs_left`` of ``jobs_per_hour`` are allowed now."""

    active: int = 0
    max_runs: int | None = None
    jobs_per_hour: float | None = None
    jobs_left: int | None = None
    paused: bool = False


class Identity(msgspec.Struct, frozen=True):
    """The user that the server takes the caller for; ``user_id`` is None for an administrator.

    ``auth`` is False where the server requires no tokens; then every caller is an administrator,
    who has no ``limits``.
    """

    user_id: int | None = None
    admin: bool = False
    auth: bool = False
    limits: PersonalLimits | None = None


class JobAnswer(msgspec.Struct, frozen=True):
    """Common part of every JSON answer about one job. In errors without a job, ``id`` is 0."""

    id: int
    status: JobStatus
    message: str


class JobError(JobAnswer, frozen=True, omit_defaults=True):
    """Error of jo-server. ``code`` distinguishes errors that have the same HTTP status."""

    code: str = ""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A job, as lists, events and callbacks show it.

    ``attempt`` counts how often the job was given to a client, ``failures`` those that count
    towards the maximum. ``client`` is the upload URL of its client, None for users. ``started_at``
    is of the last attempt that ran. ``output_bytes`` is the size of the results as a ZIP.
    """

    id: int
    user_id: int
    service: str
    status: JobStatus
    message: str = ""
    name: str = ""
    tag: str = ""
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
    failures: int = 0
    held: bool = False

    @property
    def has_ended(self) -> bool:
        """True once the job has reached a final state; its files may have been removed since."""
        return self.status.has_ended


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One change of a job's state.

    ``before`` is None for the upload. ``seconds`` is how long the job stayed in the state ``to``,
    or has been in it so far; None for Cleaned.
    """

    at: datetime
    before: JobStatus | None = msgspec.field(name="from", default=None)
    to: JobStatus
    why: str = ""
    seconds: float | None = None


class QueuePosition(msgspec.Struct, frozen=True, kw_only=True):
    """Number of the user's jobs ``ahead`` of a queued job; an estimate, or why it can't start."""

    ahead: int
    estimated_wait_s: float | None = None
    reason: str = ""


class ExpectedStart(msgspec.Struct, frozen=True):
    """Times by which a queued job starts in half, and in nine of ten, of such cases."""

    p50: datetime
    p90: datetime


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """Why a queued job waits, how many of its user's jobs are ``ahead``, and when it may start."""

    reason: str
    ahead: int = 0
    expected_start: ExpectedStart | None = None


class JobDetail(Job, frozen=True, kw_only=True):
    """A job with history and selection of results; ``queue`` and ``waiting`` only while queued."""

    history: list[Step] = []
    queue: QueuePosition | None = None
    max_attempts: int | None = None
    outputs: list[str] = []
    results: str = "all"
    waiting: Waiting | None = None


class JobPage(msgspec.Struct, frozen=True, kw_only=True):
    """One page of a list of jobs; ``next`` is the cursor of the following page, None at the end."""

    jobs: list[Job]
    next: str | None = None


class ResultFile(msgspec.Struct, frozen=True):
    """A file in the results of a job, ``size`` in bytes."""

    path: str
    size: int


class ResultFiles(msgspec.Struct, frozen=True):
    """The files in the results of a job; ``truncated`` if there are more than these."""

    files: list[ResultFile]
    truncated: bool = False


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """A service of the server: its limits, its current use and its state.

    ``state`` is ``ok``, ``degraded`` (some clients can't be used) or ``down``, for ``problem``.
    ``clients`` has upload URLs, none for users. ``active`` jobs count for the limits; ``running``
    and ``waiting`` are all that have not ended. A user may use idle slots up to
    ``runs_per_user_burst``. ``policy`` is the order of queued jobs: fair, fifo or priority.
    """

    name: str
    runs_per_user: int
    max_runs: int
    max_attempts: int
    time_limit_s: float | None = None
    active: int = 0
    queued: int = 0
    state: str = "ok"
    problem: str = ""
    clients: list[str] = []
    running: int = 0
    waiting: int = 0
    policy: str = "fair"
    runs_per_user_burst: int | None = None
    paused: bool = False


class ServiceList(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of ``GET /services``: the services of the server."""

    services: list[Service]


class PauseList(msgspec.Struct, frozen=True, kw_only=True):
    """The services and users whose queued jobs don't start."""

    services: list[str] = []
    users: list[int] = []


class ComputeClient(msgspec.Struct, frozen=True, kw_only=True):
    """A jo-client, as the server sees it; values that the server does not know are None.

    ``state`` is ``connected``, ``polled`` (the client has no event stream), ``unreachable`` or
    ``unknown``. ``cpu`` and ``memory`` are per cent of its machine. ``jobs`` counts the jobs that
    the server has given to it, ``running`` and ``waiting`` what the client itself reports.
    ``warnings`` are about settings of the client, also if they contradict those of the server.
    """

    url: str
    services: list[str] = []
    state: str = "unknown"
    problem: str = ""
    slots: int | None = None
    running: int | None = None
    waiting: int | None = None
    cpu: float | None = None
    memory: float | None = None
    jobs: int = 0
    version: str | None = None
    draining: bool = False
    warnings: list[str] = []


class ClientList(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of ``GET /clients``: the clients of the server."""

    clients: list[ComputeClient]


class Minute(msgspec.Struct, frozen=True, kw_only=True):
    """Statistics of one minute.

    ``failed`` counts Failed and Invalid jobs, ``cancelled`` Killed ones. The waiting times are
    those of the jobs that started in this minute, None if none did.
    """

    at: datetime
    submitted: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    wait_s_mean: float | None = None
    wait_s_max: float | None = None


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """Statistics of the last 60 minutes, oldest first.

    The waiting times include those of the jobs that still wait, whose number is ``waiting``.
    """

    minutes: list[Minute]
    waiting: int = 0
    wait_s_mean: float | None = None
    wait_s_max: float | None = None


class Payload(msgspec.Struct, frozen=True):
    """A payload, as its client reports it.

    Only ``id`` and ``status`` are required when reading: older clients leave out ``exit_code`` and
    ``message``, and echo the uploaded bytes in ``input``. When writing, the first six are always
    there, ``pid`` as an integer (0: no process), because older servers refuse a payload without
    them.
    """

    id: StoredInteger
    status: PayloadStatus
    input: Any = msgspec.field(default_factory=dict)
    loc: str = ""
    pid: int | None = 0
    killed: bool = False
    exit_code: StoredInteger | None = None
    message: str | None = ""


class InventoryEntry(msgspec.Struct, frozen=True):
    """A payload in the inventory of its client; ``key`` is None if its submit had none."""

    id: StoredInteger
    key: str | None
    status: PayloadStatus


class ErrorPayload(msgspec.Struct, frozen=True):
    """Error of jo-client: has the shape of a payload with id 0, so that any server can read it.

    ``status`` is ``Unknown``, which no payload ever is; ``code`` is as in ``JobError``.
    """

    message: str
    id: int = 0
    status: str = "Unknown"
    input: dict[str, Any] = msgspec.field(default_factory=dict)
    loc: str = ""
    pid: int = 0
    killed: bool = False
    exit_code: int | None = None
    code: str = ""


class AcknowledgedPayloads(msgspec.Struct, frozen=True):
    """Answer of ``DELETE /retrieve``: ids of the payloads whose files were removed."""

    discarded: list[int]


class PayloadEvent(msgspec.Struct, frozen=True):
    """``event: payload`` of a client's event stream: a payload has changed to this status.

    A Running payload that is ``packing`` holds no slot any more: its script has ended.
    """

    id: StoredInteger
    status: PayloadStatus
    exit_code: StoredInteger | None = None
    message: str = ""
    packing: bool = False


class ClientLimits(msgspec.Struct, frozen=True):
    """Settings of a client that must agree with those of its server. Sizes of 0: no limit.

    ``max_upload_bytes`` limits the files of a payload, ``max_result_bytes`` its results;
    ``max_age_s`` is how long the client keeps results that nobody fetches.
    """

    max_upload_bytes: StoredInteger
    max_result_bytes: StoredInteger
    max_age_s: float


class LoadEvent(msgspec.Struct, frozen=True):
    """``event: load`` of a client's event stream.

    ``cpu`` and ``memory`` are per cent of the machine (0-100). ``slots`` is the number of payloads
    that may run at the same time, ``running`` of those whose script runs, ``waiting`` of the
    Prepared ones.
    A ``draining`` client accepts no further payloads: it is stopping, or its machine has the fault
    ``problem``. ``version`` is that of jo-client, ``warnings`` are about its settings. Older
    versions don't send their ``limits``.
    """

    cpu: float
    memory: float
    slots: int
    running: int
    waiting: int
    draining: bool = False
    version: str = ""
    limits: ClientLimits | None = None
    problem: str = ""
    warnings: tuple[str, ...] = ()


def encode(message: msgspec.Struct | Sequence[msgspec.Struct]) -> bytes:
    """Return a message, or a list of messages, as JSON in UTF-8. Times must be ``WireTime``."""
    return _encoder.encode(message)


def _encode_time(value: Any) -> str:
    if not isinstance(value, WireTime):
        raise NotImplementedError(f"{type(value).__name__} has no form in JSON")
    return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")


_encoder = msgspec.json.Encoder(enc_hook=_encode_time)
