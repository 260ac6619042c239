"""The fair choice: limits hold, no slot idles, nobody is starved."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from job_orchestrator.server.scheduling.fair_share import Limits, WaitingUser, choose

limits = st.builds(Limits, per_user=st.integers(1, 6), per_service=st.integers(1, 12))
users = st.lists(
    st.builds(
        WaitingUser,
        user_id=st.integers(-50, 50),
        queued=st.integers(0, 8),
        active=st.integers(0, 8),
        served=st.integers(0, 100),
    ),
    unique_by=lambda user: user.user_id,
    max_size=12,
)


@given(limits, users, st.integers(0, 20), st.integers(0, 20))
def test_choice_keeps_every_limit_and_leaves_no_usable_slot(
    limits: Limits, users: list[WaitingUser], others: int, slots: int
) -> None:
    active = others + sum(user.active for user in users)
    chosen = choose(limits, active, slots, users)
    counts = Counter(chosen)
    assert len(chosen) <= max(0, min(limits.per_service - active, slots))
    for user in users:
        assert counts[user.user_id] <= user.queued
        assert counts[user.user_id] == 0 or (user.active + counts[user.user_id] <= limits.per_user)
    someone_could = any(
        counts[user.user_id] < user.queued and user.active + counts[user.user_id] < limits.per_user
        for user in users
    )
    assert not someone_could or len(chosen) >= min(limits.per_service - active, slots)


@given(st.integers(2, 6), st.integers(1, 3), st.integers(1, 5))
def test_trap_24_served_counts_of_equal_users_never_differ_by_more_than_one(
    number: int, per_user: int, slots: int
) -> None:
    served: Counter[int] = Counter()
    turns: dict[int, int] = {}
    turn = 0
    for _ in range(20):
        waiting = [WaitingUser(user, 100, 0, turns.get(user, 0)) for user in range(number)]
        for user in choose(Limits(per_user, 100), 0, slots, waiting):
            turn += 1
            turns[user] = turn
            served[user] += 1
            assert max(served.values()) - min(served[u] for u in range(number)) <= 1


def test_choice_prefers_the_user_with_the_fewest_active_jobs() -> None:
    waiting = [WaitingUser(1, 5, 2, 1), WaitingUser(2, 5, 0, 9)]
    assert choose(Limits(5, 10), 2, 3, waiting) == [2, 2, 1]
