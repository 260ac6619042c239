"""Messages about jobs: answers of jo-server to web apps."""

from datetime import datetime

import msgspec

from job_orchestrator.common.status import JobStatus


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
    is of the last attempt that ran. ``ran_s`` is how long the script of a job that has ended ran,
    by the clock of its machine if that has said so. ``output_bytes`` is the size of the results as
    a ZIP. ``cpus``, ``memory_bytes`` and ``gpus`` are what the job asks for, 0 if it asks for none.
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
    cpus: float = 0
    memory_bytes: int = 0
    gpus: int = 0
    ran_s: float | None = None

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
    """Reason why a queued job waits, number of its user's jobs ``ahead``, expected start."""

    reason: str
    ahead: int = 0
    expected_start: ExpectedStart | None = None


class JobDetail(Job, frozen=True, kw_only=True):
    """A job with history and selection of results; ``queue`` and ``waiting`` only while queued.

    ``after`` and ``afterany`` are the ids of jobs that must complete, and that must end, before it
    starts.
    """

    history: list[Step] = []
    queue: QueuePosition | None = None
    max_attempts: int | None = None
    outputs: list[str] = []
    results: str = "all"
    waiting: Waiting | None = None
    after: list[int] = []
    afterany: list[int] = []


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
