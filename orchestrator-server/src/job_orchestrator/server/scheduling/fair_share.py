"""Fair share: the next slot goes to the waiting user who has used least.

Usage is what a user has used of the service, in slot-seconds that decay, and what the active jobs
are expected to add to it, divided by the weight of the user. Ties go to the user who was served
longest ago. So no user is starved: each start of another user's job moves a waiting user up in the
order.
"""

from collections.abc import Mapping, Sequence

from job_orchestrator.server.scheduling.base import NO_USERS, Admit, Limits
from job_orchestrator.server.scheduling.choice import choose
from job_orchestrator.server.store.queue import WaitingUser


class FairShare:
    """Scheduling policy that evens out the usage of the users."""

    in_order = False

    def choose(
        self,
        limits: Limits,
        active: int,
        slots: int,
        waiting: Sequence[WaitingUser],
        everywhere: Mapping[int, int] = NO_USERS,
        admit: Admit | None = None,
    ) -> list[int]:
        """See ``SchedulingPolicy.choose``."""
        run_s, users = limits.run_s, limits.users

        def rank(user: WaitingUser, chosen: int, served: int) -> tuple[float, ...]:
            expected_s = user.usage_s + (user.active + chosen) * run_s
            return expected_s, served, user.user_id

        def weighted_rank(user: WaitingUser, chosen: int, served: int) -> tuple[float, ...]:
            expected_s = user.usage_s + (user.active + chosen) * run_s
            return expected_s / limits.terms(user.user_id).weight, served, user.user_id

        chosen_rank = weighted_rank if users else rank
        return choose(limits, active, slots, waiting, chosen_rank, everywhere, admit)
