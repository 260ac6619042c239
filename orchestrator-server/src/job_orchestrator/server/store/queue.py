"""Contract of the queue: what a claim gets and returns, and who waits."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from job_orchestrator.common.messages.resources import NOTHING, Resources
from job_orchestrator.server.model import Job, Rate

MAX_AHEAD = 1000
"""Limit of ``JobQueue.ahead``: jobs in front of a job are not counted beyond it."""

MAX_WAITING, MAX_WAITING_JOBS = 200, 20
"""Limits of ``JobQueue.waiting_users``: users, and queued jobs of each that are counted."""


@dataclass(frozen=True)
class QueuedJob:
    """A queued job, as far as the order of jobs depends on it."""

    id: int
    priority: int
    created_at: float
    time_limit_s: float | None = None
    wanted: Resources = NOTHING


@dataclass(frozen=True)
class WaitingUser:
    """A user with queued jobs of one service.

    ``queued`` counts the jobs that may be claimed now (it may be capped at the free slots),
    ``active`` those that hold a slot. ``served`` is the number of the last claim for this user (0:
    never), so smaller means longer ago. ``head`` is the id of the next job in the user's queue.
    ``usage_s`` has the slot-seconds that the user has used of the service (see ``Usage``). ``next``
    are the first ``queued`` jobs of the queue, if the offer asks for them. ``tokens`` is the number
    of jobs that the rate allows now (see ``Rate``); None: any number.
    """

    user_id: int
    queued: int
    active: int
    served: int
    head: int
    usage_s: float = 0.0
    next: tuple[QueuedJob, ...] = ()
    tokens: float | None = None


Decide = Callable[[int, int, Sequence[WaitingUser], Mapping[int, int]], Sequence[int]]
"""Scheduling decision: maps the number of active jobs of a service, the number of slots offered to
it, its waiting users, and the active jobs of each user in all services to the user of each job to
claim, in order. It keeps to the limit of the service. It must be pure and must not block: the store
calls it within a transaction, and possibly in another thread."""

MAX_BACKFILL = 10
"""Queued jobs of a user beyond the free slots that ``Arrange`` gets, to start one that fits."""


@dataclass(frozen=True)
class Start:
    """Decision to start a job of a user on a client: this one, or the first in the queue (None)."""

    user_id: int
    client: str
    job: int | None = None


Arrange = Callable[[int, Sequence[str], Sequence[WaitingUser], Mapping[int, int]], Sequence[Start]]
"""Scheduling decision for jobs that ask for resources. It gets the same as ``Decide``, but the
clients of the offered slots and the queued jobs of each user, and chooses jobs and their clients.
The same rules hold; it may be repeated, with other counts, for a transaction that failed."""

RateOf = Callable[[int], Rate | None]
"""Maps a user to the rate at which jobs of the user may start; None: at any rate."""


@dataclass(frozen=True)
class Offer:
    """Free slots for the jobs of one service.

    At most ``max_active`` jobs of the service may be active; if they are, ``decide`` is not called.
    ``clients`` has the name of a client for each job that may be claimed: a client with two free
    slots appears twice. Services that name the same client share its slots. ``holders`` has the
    user of each job of the service that waits at a client and may be called back: if there are any,
    the waiting users are returned even if no job can be claimed. ``in_order``: ``decide`` needs the
    queued jobs of each user (``WaitingUser.next``). ``everywhere``: it needs the active jobs of
    each user in all services, which are otherwise left out. ``rate_of`` limits how many jobs start;
    each first attempt takes a token.

    ``arrange`` decides instead of ``decide`` if a queued job of the service asks for resources, or
    if clients are ``reserved`` for jobs that do.

    Of services that name the same client, the next slot goes to the one with the lowest ``rank``:
    ``used_s`` has the slot-seconds of each client that the service has used and is going to use, to
    which a further job adds ``run_s``, in proportion to its ``weight``.
    """

    max_active: int
    clients: Sequence[str]
    decide: Decide
    holders: Sequence[int] = ()
    in_order: bool = False
    everywhere: bool = False
    rate_of: RateOf | None = None
    arrange: Arrange | None = None
    reserved: bool = False
    weight: float = 1.0
    used_s: Mapping[str, float] = field(default_factory=dict)
    run_s: float = 1.0

    def rank(self, client: str, further: int) -> float:
        """Return how much the service has used of a client, with so many ``further`` jobs."""
        return (self.used_s.get(client, 0.0) + further * self.run_s) / self.weight

    def without(self, taken: Mapping[str, int]) -> "Offer":
        """Return the offer without slots that were taken for other services, by client.

        A client loses its last places: the first ones may be free slots, the others look-ahead.
        """
        if not any(name in taken for name in self.clients):
            return self
        left = Counter(self.clients)
        left.subtract(taken)
        clients = []
        for name in self.clients:
            if left[name] > 0:
                left[name] -= 1
                clients.append(name)
        return replace(self, clients=clients)


@dataclass(frozen=True)
class Claim:
    """The jobs of one service that were claimed, and the counts on which the decision was based.

    ``active`` and ``waiting`` are from before the claim. ``waiting`` is empty if no slot was free
    and the offer has no holders. ``held_usage_s`` is the usage of each holder, ``everywhere`` the
    active jobs of each user in all services, if the offer asks for them. ``arranged``: queued jobs
    ask for resources, or that is not known.
    """

    jobs: Sequence[Job]
    active: int
    waiting: Sequence[WaitingUser]
    held_usage_s: Mapping[int, float] = field(default_factory=dict)
    everywhere: Mapping[int, int] = field(default_factory=dict)
    arranged: bool = False

    def extended(self, later: "Claim") -> "Claim":
        """Return this claim with the jobs of a later one in the same transaction."""
        known = self if self.waiting else later
        return replace(
            known,
            jobs=[*self.jobs, *later.jobs],
            active=self.active,
            arranged=self.arranged or later.arranged,
        )


@dataclass(frozen=True)
class Rehearsal:
    """Decision that a claim for one service would make, and the counts on which it is based.

    ``waiting`` are all users with jobs that may start, with up to ``MAX_WAITING_JOBS`` of each in
    ``WaitingUser.next``; ``active`` counts the active jobs of the service.
    """

    starts: Sequence[Start]
    active: int
    waiting: Sequence[WaitingUser]
    everywhere: Mapping[int, int]


@dataclass(frozen=True)
class Pauses:
    """Services and users whose queued jobs don't start."""

    services: frozenset[str] = frozenset()
    users: frozenset[int] = frozenset()


class JobQueue(Protocol):
    """Reads the queue of each service, and records pauses.

    The cost does not grow with ended jobs.
    """

    async def ahead(self, job: Job) -> int:
        """Count the queued jobs in front of ``job``, of the same user and service.

        Counts at most ``MAX_AHEAD``.
        """

    async def waiting_users(self, service: str) -> Sequence[WaitingUser]:
        """Return users with queued jobs of a service, at most ``MAX_WAITING``.

        Queued jobs of each are counted up to ``MAX_WAITING_JOBS``, those of a later time too.
        """

    async def rehearse(self, offers: Mapping[str, Offer], service: str) -> Rehearsal:
        """Decide as ``JobStore.claim`` does which jobs of one service start, and claim none."""

    async def tokens(self, user_id: int, rate: Rate) -> float:
        """Return how many jobs of a user ``rate`` allows now."""

    async def pauses(self) -> Pauses:
        """Return the services and users that are paused."""

    async def pause(self, *, service: str | None = None, user_id: int | None = None) -> None:
        """Record, durably, that a service, or a user, is paused."""

    async def resume(self, *, service: str | None = None, user_id: int | None = None) -> None:
        """Record, durably, that a service, or a user, is no longer paused."""
