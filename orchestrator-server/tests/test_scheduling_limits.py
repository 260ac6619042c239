"""Limits of every kind, borrowing and weights: properties of all policies."""

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job_orchestrator.server.scheduling.arrival import FirstCome, Priority
from job_orchestrator.server.scheduling.base import Limits, SchedulingPolicy, UserTerms
from job_orchestrator.server.scheduling.fair_share import FairShare
from job_orchestrator.server.store.queue import WaitingUser
from job_orchestrator.server.store.usage import Usage

POLICIES: Sequence[SchedulingPolicy] = [FairShare(), FirstCome(), Priority(3600.0)]
USERS = range(1, 7)

counts = st.integers(0, 6)
terms = st.builds(
    UserTerms,
    weight=st.sampled_from([0.5, 1.0, 4.0]),
    runs=st.none() | counts,
    burst=st.none() | counts,
    total=st.none() | counts,
    groups=st.sampled_from([(), ("a",), ("a", "b"), ("unknown",)]),
)
limits = st.builds(
    Limits,
    per_user=st.integers(1, 4),
    per_service=st.integers(1, 15),
    burst=counts,
    reserve=st.integers(0, 4),
    user_total=counts,
    total=st.integers(0, 20),
    users=st.dictionaries(st.sampled_from(USERS), terms),
    groups=st.dictionaries(st.sampled_from("ab"), counts),
    paused=st.frozensets(st.sampled_from(USERS), max_size=2),
)
users = st.lists(
    st.builds(
        WaitingUser,
        user_id=st.sampled_from(USERS),
        queued=counts,
        active=st.integers(0, 5),
        served=st.integers(0, 9),
        head=st.integers(1, 9),
        usage_s=st.sampled_from([0.0, 5.0]),
        tokens=st.none() | st.floats(-1, 4),
    ),
    unique_by=lambda user: user.user_id,
)
elsewhere = st.dictionaries(st.sampled_from(USERS), st.integers(0, 4))


def exceeds(limits: Limits, active: int, slots: int, everywhere: Mapping[int, int]) -> list[str]:
    """Name the limits over several users that are exceeded."""
    found = []
    if active > limits.per_service:
        found.append("service")
    if limits.total and sum(everywhere.values()) > limits.total:
        found.append("total")
    for name, most in limits.groups.items():
        members = [user for user in everywhere if name in limits.terms(user).groups]
        if sum(everywhere[user] for user in members) > most:
            found.append(f"group {name}")
    return found


def exceeds_as_user(
    limits: Limits, user: WaitingUser, started: int, everywhere: Mapping[int, int], most: int
) -> bool:
    """Return whether a user has more than the limits that are the user's alone."""
    total = limits.of_all_services(user.user_id)
    return (
        started > user.queued
        or user.active + started > most
        or bool(total and everywhere[user.user_id] > total)
        or (user.tokens is not None and started > user.tokens)
        or user.user_id in limits.paused
    )


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: type(policy).__name__)
@given(limits, users, elsewhere, st.integers(0, 12), st.integers(0, 5))
def test_no_limit_is_exceeded_and_no_slot_is_idle_that_somebody_may_use(
    policy: SchedulingPolicy,
    limits: Limits,
    waiting: list[WaitingUser],
    other: dict[int, int],
    slots: int,
    not_waiting: int,
) -> None:
    active = sum(user.active for user in waiting) + not_waiting
    before = Counter(other) + Counter({user.user_id: user.active for user in waiting})
    chosen = policy.choose(limits, active, slots, waiting, before)
    started = Counter(chosen)
    after = before + started
    assert len(chosen) <= max(slots, 0)
    if chosen:
        assert exceeds(limits, active + len(chosen), slots, after) == [] or not set(
            exceeds(limits, active + len(chosen), slots, after)
        ) - set(exceeds(limits, active, slots, before))
    free = min(limits.per_service - active, slots)
    if limits.total:
        free = min(free, limits.total - before.total())
    for user in waiting:
        count = started[user.user_id]
        if count:
            ceiling = limits.ceiling(user.user_id)
            assert not exceeds_as_user(limits, user, count, after, ceiling)
        # One more job of this user: somebody must be able to say why it does not start.
        one_more = after + Counter({user.user_id: 1})
        if len(chosen) >= free or set(exceeds(limits, 0, slots, one_more)):
            continue
        assert exceeds_as_user(
            limits, user, count + 1, one_more, limits.guaranteed(user.user_id)
        ), "a guaranteed job waits for a free slot"
        if free - len(chosen) > limits.reserve:
            assert exceeds_as_user(
                limits, user, count + 1, one_more, limits.ceiling(user.user_id)
            ), "a slot beyond the reserve is idle"


def waiting_user(user_id: int, queued: int, active: int = 0) -> WaitingUser:
    return WaitingUser(user_id, queued, active, served=0, head=user_id)


def test_borrowed_are_slots_that_nobody_with_a_guarantee_wants() -> None:
    limits = Limits(per_user=2, per_service=99, burst=6)
    assert FairShare().choose(limits, 0, 5, [waiting_user(1, 9)]) == [1] * 5
    both = FairShare().choose(limits, 0, 5, [waiting_user(1, 9, active=2), waiting_user(2, 1)])
    assert both == [2, 1, 1, 1, 1]


def test_reserve_is_kept_free_for_users_below_their_guarantee() -> None:
    limits = Limits(per_user=2, per_service=10, burst=9, reserve=2)
    assert FairShare().choose(limits, 0, 10, [waiting_user(1, 9)]) == [1] * 8
    assert FairShare().choose(limits, 8, 2, [waiting_user(1, 9, active=8)]) == []
    assert FairShare().choose(limits, 8, 2, [waiting_user(2, 9)]) == [2, 2]


def test_members_of_a_group_share_its_limit_in_all_services() -> None:
    course = {user: UserTerms(groups=("course",)) for user in (1, 2)}
    limits = Limits(per_user=5, per_service=99, users=course, groups={"course": 3})
    waiting = [waiting_user(user, 9) for user in (1, 2, 3)]
    assert Counter(FairShare().choose(limits, 0, 99, waiting)) == {1: 2, 2: 1, 3: 5}
    assert Counter(FairShare().choose(limits, 0, 99, waiting, {2: 3})) == {3: 5}


@pytest.mark.parametrize("weights", [{1: 1.0, 2: 1.0}, {1: 3.0, 2: 1.0}, {1: 1.0, 2: 2.0, 3: 5.0}])
def test_shares_of_a_full_service_converge_to_the_weights(weights: dict[int, float]) -> None:
    half_life_s, run_s, slots = 4_000.0, 100.0, 16
    limits = Limits(
        per_user=99,
        per_service=99,
        users={user: UserTerms(weight=weight) for user, weight in weights.items()},
        run_s=run_s,
    )
    usage = dict.fromkeys(weights, Usage())
    # Jobs take different times, so that slots become free one by one.
    ends: list[tuple[float, int, int]] = []
    number, now, used_s = 0, 0.0, dict.fromkeys(weights, 0.0)
    while now < 20 * half_life_s:
        waiting = [
            replace(
                waiting_user(user, 99, active=usage[user].slots),
                usage_s=usage[user].seconds_at(now, half_life_s),
                served=number,
            )
            for user in weights
        ]
        for user in FairShare().choose(limits, len(ends), slots - len(ends), waiting):
            number += 1
            duration_s = run_s * (0.5 + (number * 7 % 11) / 11)
            heapq.heappush(ends, (now + duration_s, number, user))
            usage[user] = usage[user].holding(usage[user].slots + 1, now, half_life_s)
            used_s[user] += duration_s if now > 2 * half_life_s else 0.0
        now, _, user = heapq.heappop(ends)
        usage[user] = usage[user].holding(usage[user].slots - 1, now, half_life_s)
    for user, weight in weights.items():
        share = used_s[user] / sum(used_s.values())
        assert share == pytest.approx(weight / sum(weights.values()), abs=0.02)
