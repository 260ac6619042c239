"""Jobs, services and clients as they are shown: the JSON of lists, details and event streams.

Times are ISO 8601 in UTC with milliseconds; fields that end in ``_s`` are seconds. Fields are only
ever added.
"""

import msgspec

from job_orchestrator.common.messages import JobView
from job_orchestrator.common.status import JobStatus


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """A change of a job's state, and for how long it stayed there (so far, if it still is)."""

    at: str
    before: JobStatus | None = msgspec.field(name="from")
    to: JobStatus
    why: str
    seconds: float | None


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a job stands in its user's queue."""

    ahead: int
    estimated_wait_s: float | None


class JobDetail(JobView, frozen=True, kw_only=True):
    """A job with its history; ``queue`` only while it is queued."""

    history: list[Step]
    queue: Place | None


class JobPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of jobs; ``next`` is the cursor of the page after it, if there is one."""

    jobs: list[JobView]
    next: str | None


class ServiceView(msgspec.Struct, frozen=True, kw_only=True):
    """A service: its limits, its use, and whether its clients can be used."""

    name: str
    runs_per_user: int
    max_runs: int
    max_attempts: int
    time_limit_s: float | None
    active: int
    queued: int
    state: str
    problem: str
    clients: list[str]


class ServiceList(msgspec.Struct, frozen=True, kw_only=True):
    """All services."""

    services: list[ServiceView]


class ClientView(msgspec.Struct, frozen=True, kw_only=True):
    """A client as the server sees it; what it doesn't know is null."""

    url: str
    services: list[str]
    state: str
    problem: str
    slots: int | None
    running: int | None
    waiting: int | None
    cpu: float | None
    memory: float | None
    jobs: int
    version: str | None
    draining: bool


class ClientList(msgspec.Struct, frozen=True, kw_only=True):
    """All clients."""

    clients: list[ClientView]


class MinuteView(msgspec.Struct, frozen=True, kw_only=True):
    """What happened in a minute: ``failed`` are Failed and Invalid jobs, ``cancelled`` Killed."""

    at: str
    submitted: int
    completed: int
    failed: int
    cancelled: int
    wait_s_mean: float | None
    wait_s_max: float | None


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """The last 60 minutes, the oldest first."""

    minutes: list[MinuteView]


class ResultFile(msgspec.Struct, frozen=True):
    """A file in a job's output, ``size`` in bytes."""

    path: str
    size: int


class ResultFiles(msgspec.Struct, frozen=True):
    """The files in a job's output; ``truncated``: there are more."""

    files: list[ResultFile]
    truncated: bool
