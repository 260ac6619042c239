"""The contract of scheduling policies: which users' jobs are started next."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from job_orchestrator.server.model import Rate
from job_orchestrator.server.store.queue import WaitingUser

NO_USERS: Mapping[int, int] = {}

UNLIMITED = 2**63
"""More jobs than there are."""


@dataclass(frozen=True)
class UserTerms:
    """Terms of one user, instead of the settings of the service. None: as for everybody.

    - ``weight``: of two users, the one with twice the weight may use twice as much.
    - ``runs`` is the guaranteed number of active jobs in each service, ``burst`` the number up to
      which idle slots may be borrowed, ``total`` the number over all services.
    - ``groups`` are those whose limits the user shares.
    - ``rate`` limits the jobs of the user by time, ``max_priority`` is the highest priority that
      the user may ask for.
    """

    weight: float = 1.0
    runs: int | None = None
    burst: int | None = None
    total: int | None = None
    groups: tuple[str, ...] = ()
    rate: Rate | None = None
    max_priority: int | None = None


AS_SET = UserTerms()


@dataclass(frozen=True)
class Limits:
    """Limits of concurrently active jobs in one service. 0 means without a limit where it is said.

    - ``per_user`` is guaranteed to each user. Up to ``burst`` (0: no more than that) a user may
      borrow slots that would stay idle, but the last ``reserve`` free ones.
    - ``per_service`` limits all users of the service together.
    - ``user_total`` (0: none) limits a user over all services, ``total`` (0: none) all jobs.
    - ``users`` has the terms of single users, ``groups`` the limit of each group over all services.
    - No job of ``paused`` users starts.
    - ``run_s`` is the expected run time of a job: what each active job is going to add to the usage
      of its user.
    """

    per_user: int
    per_service: int
    burst: int = 0
    reserve: int = 0
    user_total: int = 0
    total: int = 0
    users: Mapping[int, UserTerms] = field(default_factory=dict)
    groups: Mapping[str, int] = field(default_factory=dict)
    paused: Collection[int] = ()
    run_s: float = 1.0

    def terms(self, user_id: int) -> UserTerms:
        """Return the terms of a user."""
        return self.users.get(user_id, AS_SET)

    def guaranteed(self, user_id: int) -> int:
        """Return how many active jobs in this service a user is guaranteed."""
        runs = self.terms(user_id).runs
        return self.per_user if runs is None else runs

    def ceiling(self, user_id: int) -> int:
        """Return how many active jobs in this service a user may have, with borrowed slots."""
        burst = self.terms(user_id).burst
        return max(self.guaranteed(user_id), self.burst if burst is None else burst)

    def of_all_services(self, user_id: int) -> int:
        """Return how many active jobs in all services a user may have; 0 if there is no limit."""
        total = self.terms(user_id).total
        return self.user_total if total is None else total

    def lifted(self) -> "Limits":
        """Return limits that limit nothing, and order users as these do."""
        users = {user_id: UserTerms(weight=each.weight) for user_id, each in self.users.items()}
        return Limits(UNLIMITED, UNLIMITED, users=users, run_s=self.run_s)

    @property
    def depend_on_other_services(self) -> bool:
        """True if a limit counts the jobs of other services, too."""
        return bool(
            self.total
            or self.user_total
            or self.groups
            or any(terms.total for terms in self.users.values())
        )

    def active_of_groups(self, everywhere: Mapping[int, int]) -> Counter[str]:
        """Count the active jobs of each group, given those of each user."""
        counts: Counter[str] = Counter()
        if self.groups:
            for user_id, active in everywhere.items():
                for group in self.terms(user_id).groups:
                    counts[group] += active
        return counts


Admit = Callable[[WaitingUser, int], bool]
"""Function that starts a job of a user who has this number of jobs chosen already, if one fits.

It is called when it is the user's turn, so the order of the calls is that of the jobs."""


class SchedulingPolicy(Protocol):
    """Decides which users' jobs of one service are started next.

    A policy is a pure function: it runs inside the transaction that claims the jobs, so it must be
    quick, and equal arguments must give equal results. Every policy keeps the limits, and leaves no
    slot idle while a user with queued jobs is below the limits.

    ``in_order``: it depends on the single jobs, not only on their users (``WaitingUser.next``).
    """

    @property
    def in_order(self) -> bool:
        """See the class."""

    def choose(
        self,
        limits: Limits,
        active: int,
        slots: int,
        waiting: Sequence[WaitingUser],
        everywhere: Mapping[int, int] = NO_USERS,
        admit: Admit | None = None,
    ) -> Sequence[int]:
        """Return the user of each job to start, in order; a user appears once for every job.

        ``active`` counts all active jobs of the service, ``slots`` those that the clients can take
        now. ``everywhere`` has the active jobs of each user in all services; it may be empty if no
        limit depends on them. A user whom ``admit`` refuses is passed over.
        """
