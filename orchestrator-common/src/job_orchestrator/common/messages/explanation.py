"""Messages about decisions of the scheduler: limits and their use, and what keeps a job waiting."""

from datetime import datetime

import msgspec

from job_orchestrator.common.messages.resources import Resources
from job_orchestrator.common.status import JobStatus


class LimitUse(msgspec.Struct, frozen=True, kw_only=True):
    """A limit, and how much of it is used.

    ``kind`` is ``user_and_service`` (jobs of a user in a service), ``borrowing`` (the same with
    idle slots), ``user`` (jobs of a user in all services), ``group``, ``service``, ``total``, or
    ``rate`` (jobs of a user by time). ``name`` is that of the service or group. A job that counts
    for a ``reached`` limit waits, but for ``user_and_service`` where slots may be borrowed.
    """

    kind: str
    name: str = ""
    used: float
    limit: float
    reached: bool


class UserInLine(msgspec.Struct, frozen=True, kw_only=True):
    """A user who waits for a service, as the policy sees the user.

    ``usage_s`` has the slot-seconds that were used, which decay; ``share`` is the part of the slots
    that the weight stands for, if all who wait have jobs enough. ``place`` is the place of the
    user's next job in the order, from 1. ``jobs_left`` is how many jobs the rate allows now, None
    without a rate.
    """

    user_id: int
    weight: float
    share: float
    usage_s: float
    active: int
    queued: int
    place: int | None = None
    next: int | None = None
    jobs_left: int | None = None
    paused: bool = False


class ClientForJob(msgspec.Struct, frozen=True, kw_only=True):
    """A client of a service, and why it can't take a job now: ``obstacle``, empty if it can.

    ``free`` counts its free slots, ``resources_free`` what is left of its resources. Both are None
    if the client has not reported them. ``kept_for`` is the job for which it is kept.
    """

    url: str
    state: str
    slots: int | None = None
    free: int | None = None
    resources: Resources | None = None
    resources_free: Resources | None = None
    kept_for: int | None = None
    obstacle: str = ""


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Figures on which the start of a queued job depends, for administrators.

    ``starts_now`` says what the scheduler decides on these figures. ``place`` is the place of the
    job in the order of all queued jobs of its service, None if it is not among the first or can't
    start yet. ``users`` are in that order, at most 100; ``waiting_users`` counts all of them.
    """

    id: int
    status: JobStatus
    service: str
    user_id: int
    at: datetime
    reason: str = ""
    policy: str = "fair"
    starts_now: bool = False
    place: int | None = None
    limits: list[LimitUse] = []
    users: list[UserInLine] = []
    waiting_users: int = 0
    clients: list[ClientForJob] = []
