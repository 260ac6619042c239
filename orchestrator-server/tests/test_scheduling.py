"""The contract of scheduling policies, and what is special of fair share."""

import random
import time
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job_orchestrator.server.scheduling.arrival import FirstCome, Priority
from job_orchestrator.server.scheduling.base import Limits, SchedulingPolicy
from job_orchestrator.server.scheduling.fair_share import FairShare
from job_orchestrator.server.store.queue import QueuedJob, WaitingUser

POLICIES: Sequence[SchedulingPolicy] = [FairShare(), FirstCome(), Priority(3600.0), Priority(0.0)]

limits = st.builds(
    Limits,
    per_user=st.integers(1, 6),
    per_service=st.integers(1, 12),
    run_s=st.sampled_from([0.1, 1.0, 60.0]),
)


@st.composite
def waiting_users_of(draw: st.DrawFn) -> list[WaitingUser]:
    """Draw waiting users with their queued jobs: ids in the order of arrival, by priority."""
    users: list[WaitingUser] = []
    ids = iter(draw(st.permutations(range(1, 100))))
    for user_id in draw(st.lists(st.integers(-50, 50), unique=True, max_size=12)):
        priorities = draw(st.lists(st.integers(-3, 3), max_size=8))
        jobs = [
            QueuedJob(job_id, n, job_id * 60.0) for job_id, n in zip(ids, priorities, strict=False)
        ]
        jobs.sort(key=lambda job: (-job.priority, job.id))
        user = WaitingUser(
            user_id,
            queued=len(jobs),
            active=draw(st.integers(0, 8)),
            served=draw(st.integers(0, 100)),
            head=jobs[0].id if jobs else 0,
            usage_s=draw(st.sampled_from([0.0, 1.0, 3600.0])),
            next=tuple(jobs),
        )
        users.append(user)
    return users


waiting_users = waiting_users_of()


def waiting_user(
    user_id: int, *, queued: int, active: int = 0, served: int = 0, usage_s: float = 0.0
) -> WaitingUser:
    return WaitingUser(user_id, queued, active, served, head=1, usage_s=usage_s)


def user_with(user_id: int, *jobs: tuple[int, int], active: int = 0) -> WaitingUser:
    """Return a user with queued jobs: pairs of id and priority, one job an hour."""
    queued = tuple(QueuedJob(job_id, priority, job_id * 3600.0) for job_id, priority in jobs)
    return WaitingUser(user_id, len(queued), active, 0, queued[0].id, next=queued)


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


def test_fair_share_prefers_the_user_who_has_used_least() -> None:
    limits = Limits(5, 10, run_s=60.0)
    waiting = [
        waiting_user(1, queued=5, usage_s=7200.0),
        waiting_user(2, queued=5, active=3, usage_s=0.0),
    ]
    assert FairShare().choose(limits, 3, 4, waiting) == [2, 2, 1, 1]


def test_fair_share_counts_what_active_jobs_are_going_to_use() -> None:
    waiting = [
        waiting_user(1, queued=5, usage_s=100.0),
        waiting_user(2, queued=5, active=2, usage_s=0.0),
    ]
    assert FairShare().choose(Limits(9, 99, run_s=60.0), 2, 2, waiting) == [1, 2]


def test_first_come_starts_the_jobs_of_all_users_in_the_order_of_arrival() -> None:
    waiting = [user_with(1, (1, 0), (2, 0), (5, 0)), user_with(2, (3, 0), (4, 0))]
    assert FirstCome().choose(Limits(9, 99), 0, 9, waiting) == [1, 1, 2, 2, 1]
    assert FirstCome().choose(Limits(1, 99), 0, 9, waiting) == [1, 2]


def test_priority_orders_the_jobs_of_all_users() -> None:
    waiting = [user_with(1, (2, 5), (1, 0)), user_with(2, (3, 9), (4, 1))]
    assert Priority(0.0).choose(Limits(9, 99), 0, 9, waiting) == [2, 1, 2, 1]


def test_job_that_waits_overtakes_higher_priorities_in_time() -> None:
    waiting = [user_with(1, (1, 0)), user_with(2, (4, 2), (9, 2))]
    assert Priority(3600.0).choose(Limits(9, 99), 0, 9, waiting) == [1, 2, 2]
    assert Priority(7200.0).choose(Limits(9, 99), 0, 9, waiting) == [2, 1, 2]


@given(st.lists(st.integers(0, 2), min_size=3, max_size=3), st.integers(1, 8))
def test_job_with_priority_0_starts_however_many_urgent_ones_arrive(
    priorities: list[int], slots: int
) -> None:
    arrivals = iter(range(2, 1000))
    low = user_with(1, (1, 0))
    for _ in range(200):
        urgent = [(next(arrivals), 2 + priority) for priority in priorities]
        if 1 in Priority(3600.0).choose(Limits(9, 99), 0, 1, [low, user_with(2, *urgent)]):
            return
    raise AssertionError("the job with priority 0 still waits")


def test_decision_for_1000_users_and_1000_slots_is_quick() -> None:
    waiting = [
        WaitingUser(
            user,
            queued=1000,
            active=user % 7,
            served=user,
            head=user,
            usage_s=user * 1.5,
            next=tuple(QueuedJob(user + 1000 * n, 0, n) for n in range(3)),
        )
        for user in range(1000)
    ]
    for policy in POLICIES:
        times = []
        for _ in range(5):
            begun = time.perf_counter()
            assert len(policy.choose(Limits(50, 5000), 2000, 1000, waiting)) == 1000
            times.append(time.perf_counter() - begun)
        # About 2 ms; the bound is generous for a busy machine.
        assert min(times) < 0.05
