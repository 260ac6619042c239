"""Look-ahead: jobs that wait at a client for a slot, and which of them give way to others."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from job_orchestrator.common.status import JobStatus
from job_orchestrator.server.model import Job
from job_orchestrator.server.scheduling.arrival import Priority
from job_orchestrator.server.scheduling.base import Limits
from job_orchestrator.server.scheduling.fair_share import FairShare
from job_orchestrator.server.scheduling.look_ahead import look_ahead, outranked, overtaken
from job_orchestrator.server.store.queue import QueuedJob, WaitingUser
from sample_job import JOB

RUN_TIMES = {"short": 0.1, "medium": 0.4, "long": 30.0}
NO_LIMITS = Limits(per_user=100, per_service=1000)


def job(job_id: int, *, user: int = 1, service: str = "short", priority: int = 0) -> Job:
    return replace(
        JOB,
        id=job_id,
        user_id=user,
        service=service,
        priority=priority,
        status=JobStatus.SUBMITTED,
        changed_at=float(job_id),
        started_at=None,
    )


@pytest.mark.parametrize(
    ("service", "slots", "jobs", "expected"),
    [
        ("short", 2, [], 4),
        ("short", 20, [], 10),
        ("medium", 20, [], 2),
        ("long", 20, [], 0),
        ("unknown", 20, [], 0),
        ("short", 2, [job(1, service="long")], 2),
        ("short", 2, [job(1, service="long"), job(2, service="unknown")], 0),
        ("short", 2, [replace(job(1), started_at=90.0)], 2),
        ("short", 2, [replace(job(1), started_at=99.9)], 4),
    ],
)
def test_look_ahead_is_a_second_of_work_of_short_jobs_on_slots_that_become_free_soon(
    service: str, slots: int, jobs: list[Job], expected: int
) -> None:
    assert look_ahead(service, RUN_TIMES.get, slots, jobs, now=100.0) == expected


def waiting(user_id: int, queued: int, active: int = 0, served: int = 0) -> WaitingUser:
    return WaitingUser(user_id, queued, active, served, head=1)


def test_overtaken_user_with_many_jobs_gives_a_place_to_one_without_any() -> None:
    active = [job(number) for number in range(1, 5)]
    called = overtaken(FairShare(), NO_LIMITS, active, active[2:], [waiting(2, queued=1)], {})
    assert [each.id for each in called] == [4]


def test_overtaken_nobody_gives_way_to_a_user_with_as_many_jobs() -> None:
    active = [job(1, user=1), job(2, user=2)]
    assert (
        overtaken(FairShare(), NO_LIMITS, active, active[1:], [waiting(1, 3, active=1)], {}) == []
    )


users = st.integers(1, 4)


@settings(max_examples=1000)
@example([], [2, 3, 3, 3, 3, 2], {1: 3}, {})
@given(
    st.lists(users, max_size=8),
    st.lists(users, max_size=6),
    st.dictionaries(users, st.just(3)),
    st.dictionaries(users, st.sampled_from([0.0, 0.5, 2.0, 9.0])),
)
def test_overtaken_jobs_are_not_called_back_again_by_those_that_took_their_place(
    running: list[int], held: list[int], queued: dict[int, int], used: dict[int, float]
) -> None:
    def decide(not_started: Sequence[Job], waiting_counts: Counter[int]) -> list[Job]:
        active = [job(100 + n, user=user) for n, user in enumerate(running)] + [*not_started]
        counts = Counter(each.user_id for each in active)
        return overtaken(
            FairShare(),
            NO_LIMITS,
            active,
            not_started,
            [
                replace(waiting(user, n, counts[user], user), usage_s=used.get(user, 0.0))
                for user, n in waiting_counts.items()
                if n > 0
            ],
            used,
        )

    before = [job(number, user=user) for number, user in enumerate(held)]
    called = decide(before, Counter(queued))
    kept = [each for each in before if each not in called]
    # The places go to the users whom fair share chooses among all that wait now.
    still = Counter(queued) + Counter(each.user_id for each in called)
    counts = Counter(running) + Counter(each.user_id for each in kept)
    chosen = FairShare().choose(
        NO_LIMITS,
        counts.total(),
        len(called),
        [
            replace(waiting(user, n, counts[user], user), usage_s=used.get(user, 0.0))
            for user, n in still.items()
        ],
    )
    after = kept + [job(50 + n, user=user) for n, user in enumerate(chosen)]
    assert decide(after, still - Counter(chosen)) == []


def test_outranked_job_of_the_same_user_with_the_lowest_priority_gives_way() -> None:
    held = [job(1, priority=5), job(2, priority=1), job(3, priority=1), job(4, user=2)]
    arrivals = [job(9, priority=3), job(10, priority=0, user=2)]
    assert [each.id for each in outranked(arrivals, held)] == [3]


def test_overtaken_job_of_a_user_who_has_used_more_gives_way() -> None:
    active = [job(1, user=1), job(2, user=2)]
    rival = replace(waiting(2, queued=1, active=1), usage_s=5.0)
    limits = replace(NO_LIMITS, run_s=1.0)
    assert overtaken(FairShare(), limits, active, active[:1], [rival], {1: 4.0}) == []
    called = overtaken(FairShare(), limits, active, active[:1], [rival], {1: 9.0})
    assert [each.id for each in called] == [1]


def test_overtaken_job_gives_way_to_one_of_higher_priority_of_another_user() -> None:
    active = [job(5, priority=1), job(6, priority=3)]
    rival = replace(waiting(2, queued=1), next=(QueuedJob(9, 2, 0.0),))
    called = overtaken(Priority(0.0), NO_LIMITS, active, active, [rival], {})
    assert [each.id for each in called] == []
    called = overtaken(Priority(0.0), NO_LIMITS, active[:1], active[:1], [rival], {})
    assert [each.id for each in called] == [5]
