"""Choice of the next jobs within the limits: the part that all policies have in common."""

import heapq
import math
from collections.abc import Callable, Mapping, Sequence

from job_orchestrator.server.scheduling.base import NO_USERS, Admit, Limits
from job_orchestrator.server.store.queue import WaitingUser

Rank = Callable[[WaitingUser, int, int], tuple[float, ...]]
"""Maps a user, the number of the user's jobs that are chosen already, and when the user was served
last, to a rank. The smallest rank goes first, so ranks must differ between users. A user's rank
must not fall as more jobs are chosen."""


def choose(
    limits: Limits,
    active: int,
    slots: int,
    waiting: Sequence[WaitingUser],
    rank: Rank,
    everywhere: Mapping[int, int] = NO_USERS,
    admit: Admit | None = None,
) -> list[int]:
    """Return the user of each job to start, as ``SchedulingPolicy.choose`` does.

    First come the jobs that users are guaranteed, then, while more than the reserve is free, those
    that borrow.
    """
    free = min(limits.per_service - active, slots)
    if limits.total:
        free = min(free, limits.total - sum(everywhere.values()))
    choice = _Choice(limits, waiting, rank, everywhere, admit)
    choice.fill(free, [limits.guaranteed(user.user_id) for user in waiting])
    if len(choice.chosen) < free - limits.reserve and choice.some_may_borrow:
        choice.fill(free - limits.reserve, [limits.ceiling(user.user_id) for user in waiting])
    return choice.chosen


class _Choice:
    """Jobs that are chosen so far, and what they leave of each limit."""

    def __init__(
        self,
        limits: Limits,
        waiting: Sequence[WaitingUser],
        rank: Rank,
        everywhere: Mapping[int, int],
        admit: Admit | None,
    ) -> None:
        self._admit = admit
        self.chosen: list[int] = []
        self._limits = limits
        self._waiting = waiting
        self._rank = rank
        self._counts = [0] * len(waiting)
        self._most = [self._most_starts(user, everywhere) for user in waiting]
        self._served = max((user.served for user in waiting), default=0)
        in_groups = limits.active_of_groups(everywhere)
        self._group_left = {name: most - in_groups[name] for name, most in limits.groups.items()}

    @property
    def some_may_borrow(self) -> bool:
        """True if a user may have more than what is guaranteed."""
        limits = self._limits
        return limits.burst > limits.per_user or any(
            terms.burst is not None or terms.runs is not None for terms in limits.users.values()
        )

    def fill(self, places: int, per_user: Sequence[int]) -> None:
        """Choose up to ``places`` jobs in all, and so many active jobs of each user."""
        heap = [
            (self._rank(user, self._counts[number], user.served), number)
            for number, user in enumerate(self._waiting)
            if self._may_start(number, per_user[number])
        ]
        heapq.heapify(heap)
        waiting, counts, rank = self._waiting, self._counts, self._rank
        chosen, left = self.chosen, places - len(self.chosen)
        while heap and left > 0:
            number = heap[0][1]
            user = waiting[number]
            # Members of the user's groups may have been chosen since.
            if self._group_left and not self._has_place_in_groups(user.user_id):
                heapq.heappop(heap)
                continue
            if self._admit is not None and not self._admit(user, counts[number]):
                heapq.heappop(heap)
                continue
            if self._group_left:
                self._take_place_in_groups(user.user_id)
            chosen.append(user.user_id)
            left -= 1
            self._served += 1
            counts[number] += 1
            if self._may_start(number, per_user[number]):
                heapq.heapreplace(heap, (rank(user, counts[number], self._served), number))
            else:
                heapq.heappop(heap)

    def _has_place_in_groups(self, user_id: int) -> bool:
        """Return whether no group of a user is full."""
        return all(self._group_left.get(name, 1) > 0 for name in self._limits.terms(user_id).groups)

    def _take_place_in_groups(self, user_id: int) -> None:
        """Count a job of a user in the user's groups."""
        for name in self._limits.terms(user_id).groups:
            if name in self._group_left:
                self._group_left[name] -= 1

    def _may_start(self, number: int, per_user: int) -> bool:
        count = self._counts[number]
        return count < self._most[number] and self._waiting[number].active + count < per_user

    def _most_starts(self, user: WaitingUser, everywhere: Mapping[int, int]) -> int:
        """Return how many jobs of a user may start by the limits that are the user's alone."""
        limits = self._limits
        if user.user_id in limits.paused:
            return 0
        most = user.queued
        if user.tokens is not None:
            most = min(most, math.floor(user.tokens))
        if total := limits.of_all_services(user.user_id):
            most = min(most, total - everywhere.get(user.user_id, 0))
        return most
