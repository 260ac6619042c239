"""The contract of scheduling policies, and what is special of fair share."""

import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job_orchestrator.server.scheduling.base import Limits, SchedulingPolicy
from job_orchestrator.server.scheduling.fair_share import FairShare
from job_orchestrator.server.store.queue import WaitingUser

POLICIES: Sequence[SchedulingPolicy] = [FairShare()]

limits = st.builds(Limits, per_user=st.integers(1, 6), per_service=st.integers(1, 12))
waiting_users = st.lists(
    st.builds(
        WaitingUser,
        user_id=st.integers(-50, 50),
        queued=st.integers(0, 8),
        active=st.integers(0, 8),
        served=st.integers(0, 100),
        head=st.just(1),
    ),
    unique_by=lambda user: user.user_id,
    max_size=12,
)


def waiting_user(user_id: int, *, queued: int, active: int, served: int) -> WaitingUser:
    return WaitingUser(user_id, queued, active, served, head=1)


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: type(policy).__name__)
class TestContract:
    """Properties of every policy; a second policy is one more entry of ``POLICIES``."""

    @given(limits, waiting_users, st.integers(0, 20), st.integers(0, 20))
    def test_choice_keeps_every_limit_and_leaves_no_usable_slot(
        self,
        policy: SchedulingPolicy,
        limits: Limits,
        users: list[WaitingUser],
        others: int,
        slots: int,
    ) -> None:
        active = others + sum(user.active for user in users)
        chosen = policy.choose(limits, active, slots, users)
        counts = Counter(chosen)
        free = max(0, min(limits.per_service - active, slots))
        assert len(chosen) <= free
        assert counts.keys() <= {user.user_id for user in users}
        for user in users:
            count = counts[user.user_id]
            assert count <= user.queued
            assert count == 0 or user.active + count <= limits.per_user
        someone_could = any(
            counts[user.user_id] < user.queued
            and user.active + counts[user.user_id] < limits.per_user
            for user in users
        )
        assert not someone_could or len(chosen) == free

    @given(limits, waiting_users, st.integers(0, 20), st.randoms(use_true_random=False))
    def test_choice_depends_only_on_its_arguments_and_not_on_their_order(
        self,
        policy: SchedulingPolicy,
        limits: Limits,
        users: list[WaitingUser],
        slots: int,
        shuffled_by: random.Random,
    ) -> None:
        chosen = policy.choose(limits, 0, slots, users)
        assert policy.choose(limits, 0, slots, users) == chosen
        shuffled_by.shuffle(users)
        assert policy.choose(limits, 0, slots, users) == chosen


@given(st.integers(2, 6), st.integers(1, 3), st.integers(1, 5))
def test_trap_24_served_counts_of_equal_users_never_differ_by_more_than_one(
    number: int, per_user: int, slots: int
) -> None:
    served: Counter[int] = Counter()
    last_claims: dict[int, int] = {}
    claims = 0
    for _ in range(20):
        waiting = [
            waiting_user(user, queued=100, active=0, served=last_claims.get(user, 0))
            for user in range(number)
        ]
        for user in FairShare().choose(Limits(per_user, 100), 0, slots, waiting):
            claims += 1
            last_claims[user] = claims
            served[user] += 1
            assert max(served.values()) - min(served[u] for u in range(number)) <= 1


def test_fair_share_prefers_the_user_with_the_fewest_active_jobs() -> None:
    waiting = [
        waiting_user(1, queued=5, active=2, served=1),
        waiting_user(2, queued=5, active=0, served=9),
    ]
    assert FairShare().choose(Limits(5, 10), 2, 3, waiting) == [2, 2, 1]
