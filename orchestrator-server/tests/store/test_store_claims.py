"""Contract of ``JobStore.claim``: atomic, within the limits, by the decision of the caller."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from job_orchestrator.common.status import JobStatus
from job_orchestrator.server.model import Job, JobOptions, Order, Rate
from job_orchestrator.server.scheduling.base import Limits
from job_orchestrator.server.scheduling.rules import policies
from job_orchestrator.server.store.base import JobStore
from job_orchestrator.server.store.queue import Offer, WaitingUser
from stores import CLIENT, Clock, Implementation, OpenStore, all_of_them, claim, requeue


async def test_claimed_job_is_processing_at_the_client_in_a_further_attempt(
    store: JobStore,
) -> None:
    await store.create("u", 1, "x")
    (job,) = await claim(store)
    assert (job.status, job.client, job.attempt) == (JobStatus.PROCESSING, CLIENT, 1)
    assert job.message == "Being sent to a machine"
    assert await store.get(job.id) == job


async def test_job_is_claimed_once_however_many_callers_claim(store: JobStore) -> None:
    for number in range(30):
        await store.create(f"u{number}", number % 3, "x")
    claimed = await asyncio.gather(*(claim(store, 4) for _ in range(10)))
    ids = [job.id for each in claimed for job in each]
    assert sorted(ids) == list(range(1, 31))


async def test_claims_are_fifo_within_a_user_and_count_between_users(store: JobStore) -> None:
    for number in range(6):
        await store.create(f"u{number}", 1 if number < 4 else 2, "x")
    seen: list[WaitingUser] = []

    def decide(
        active: int, slots: int, waiting: Sequence[WaitingUser], _: object = None
    ) -> Sequence[int]:
        seen[:] = waiting
        return [1, 2]

    for active, served in ((0, [0, 0]), (2, [1, 2])):
        taken = await store.claim({"x": Offer(10, ["c"] * 2, decide)})
        assert taken["x"].active == active
        assert list(taken["x"].waiting) == seen
        assert [user.served for user in seen] == served
    assert [user.head for user in seen] == [2, 6]
    assert [user.active for user in seen] == [1, 1]


async def test_claims_take_higher_priorities_first_within_a_user(store: JobStore) -> None:
    for number, priority in enumerate((0, 5, -5, 5)):
        await store.create(f"u{number}", 1, "x", JobOptions(priority=priority))
    assert [job.id for job in await claim(store, 4)] == [2, 4, 1, 3]


async def test_concurrent_claims_never_exceed_the_limit_of_a_service(store: JobStore) -> None:
    for number in range(20):
        await store.create(f"u{number}", number, "x")

    def up_to_seven(
        active: int, slots: int, waiting: Sequence[WaitingUser], _: object = None
    ) -> Sequence[int]:
        return all_of_them(active, slots, waiting)[: 7 - active]

    offers = {"x": Offer(7, [CLIENT] * 5, up_to_seven)}
    claims = await asyncio.gather(*(store.claim(offers) for _ in range(8)))
    assert sum(len(each["x"].jobs) for each in claims) == 7
    full = (await store.claim(offers))["x"]
    assert (list(full.jobs), full.active, list(full.waiting)) == ([], 7, [])


async def test_queued_jobs_of_a_user_are_counted_up_to_the_free_slots(store: JobStore) -> None:
    for number in range(9):
        await store.create(f"u{number}", 1, "x")
    taken = (await store.claim({"x": Offer(10, [CLIENT] * 3, lambda *_: [])}))["x"]
    assert [user.queued for user in taken.waiting] == [3]


async def test_claim_leaves_services_that_are_not_offered(store: JobStore) -> None:
    await store.create("u", 1, "x")
    await store.create("v", 1, "y")
    claims = await store.claim({"y": Offer(9, [CLIENT], all_of_them)})
    assert [job.service for job in claims["y"].jobs] == ["y"]
    assert list(claims) == ["y"]


async def test_claim_finds_jobs_that_are_queued_after_one_that_found_none(
    open_job_store: OpenStore,
) -> None:
    async with open_job_store() as store:
        assert await claim(store) == []
        await store.create("u", 1, "x")
        assert [job.id for job in await claim(store)] == [1]
        assert await claim(store) == []
        await store.create("v", 1, "x")
    async with open_job_store() as store:
        assert [job.id for job in await claim(store)] == [2]


async def test_delayed_job_is_not_counted_as_claimable(open_job_store: OpenStore) -> None:
    clock = Clock()
    async with open_job_store(clock) as store:
        await store.create("u", 1, "x")
        (job,) = await claim(store)
        await store.requeue(
            job, "busy", delay_s=5, max_attempts=3, counts=False, may_still_run=False
        )
        taken = (await store.claim({"x": Offer(9, [CLIENT], all_of_them)}))["x"]
        assert [(user.queued, user.head) for user in taken.waiting] == [(0, 1)]


async def test_each_claim_has_a_key_that_no_other_claim_ever_gets(store: JobStore) -> None:
    await store.create("u", 1, "x")
    (first,) = await claim(store)
    await requeue(store, first)
    (second,) = await claim(store)
    assert first.key == f"u.1.{first.nonce}"
    assert second.key == f"u.2.{second.nonce}"
    assert first.nonce != second.nonce
    assert all(store.installation.made(job.key) for job in (first, second))


async def test_installation_is_the_same_after_a_restart(open_job_store: OpenStore) -> None:
    async with open_job_store() as store:
        before = store.installation
    async with open_job_store() as store:
        assert store.installation == before


async def test_keys_of_another_installation_are_told_apart(
    store: JobStore, implementation: Implementation, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    async with implementation.open(tmp_path / "other", time.time) as other:
        await other.create("u", 1, "x")
        (job,) = await claim(other)
        assert not store.installation.made(job.key)
    assert not store.installation.made("u.1")


async def _usage_s(store: JobStore, service: str = "x") -> dict[int, float]:
    waiting = await store.queue.waiting_users(service)
    return {user.user_id: round(user.usage_s) for user in waiting}


async def test_slots_that_a_user_holds_are_usage_until_each_attempt_ends(
    open_job_store: OpenStore,
) -> None:
    clock = Clock()
    async with open_job_store(clock) as store:
        for number in range(6):
            await store.create(f"u{number}", 1 if number < 5 else 2, "x")
        jobs = await claim(store, 3)
        assert await _usage_s(store) == {1: 0, 2: 0}
        clock.at += 10
        assert await _usage_s(store) == {1: 30, 2: 0}
        await store.transition(jobs[0], JobStatus.SUBMITTED, "", dest_id=1)
        await store.transition(jobs[0], JobStatus.COMPLETED, "")
        await requeue(store, jobs[1])
        clock.at += 10
        assert await _usage_s(store) == {1: 40, 2: 0}
    async with open_job_store(clock) as store:
        clock.at += 10
        assert await _usage_s(store) == {1: 50, 2: 0}, "jobs go on while the server is stopped"
        await store.client_lost(CLIENT, "gone")
        clock.at += 10
        assert await _usage_s(store) == {1: 60, 2: 0}, "an Unknown job may still run"


async def test_job_that_ends_in_the_queue_uses_nothing(open_job_store: OpenStore) -> None:
    clock = Clock()
    async with open_job_store(clock) as store:
        first, second = [await store.create(f"u{number}", 1, "x") for number in range(2)]
        await store.transition(first, JobStatus.KILLED, "")
        clock.at += 10
        assert await _usage_s(store) == {1: 0}
        (claimed,) = await claim(store)
        assert claimed.id == second.id
        await store.create("u3", 1, "x")
        clock.at += 10
        assert await _usage_s(store) == {1: 10}


async def test_decision_knows_usage_of_each_service_and_of_holders(
    open_job_store: OpenStore,
) -> None:
    clock, seen = Clock(), list[WaitingUser]()
    async with open_job_store(clock) as store:
        for number, (user, service) in enumerate([(1, "x"), (1, "y"), (2, "x")]):
            await store.create(f"u{number}", user, service)
        await claim(store, service="y")
        await claim(store, decide=lambda *_: [2])
        clock.at += 10

        def decide(
            active: int, slots: int, waiting: Sequence[WaitingUser], _: object = None
        ) -> Sequence[int]:
            seen.extend(waiting)
            return []

        taken = (await store.claim({"x": Offer(9, [CLIENT], decide, holders=[2, 2])}))["x"]
        assert [(user.user_id, user.usage_s) for user in seen] == [(1, 0.0)]
        assert {user: round(used) for user, used in taken.held_usage_s.items()} == {2: 10}


async def test_decision_knows_the_next_jobs_of_each_user_if_it_asks_for_them(
    store: JobStore,
) -> None:
    for number, priority in enumerate((0, 5, -5)):
        await store.create(f"u{number}", 1, "x", JobOptions(priority=priority))
    for in_order, expected in ((True, [2, 1]), (False, [])):
        offer = Offer(9, [CLIENT] * 2, lambda *_: [], in_order=in_order)
        (user,) = (await store.claim({"x": offer}))["x"].waiting
        assert [job.id for job in user.next] == expected


async def test_decision_knows_the_active_jobs_of_each_user_in_all_services(
    store: JobStore,
) -> None:
    for number, (user, service) in enumerate([(1, "x"), (1, "y"), (2, "y"), (1, "x"), (3, "x")]):
        await store.create(f"u{number}", user, service)
    seen = []

    def decide(
        active: int, slots: int, waiting: Sequence[WaitingUser], everywhere: Mapping[int, int]
    ) -> Sequence[int]:
        seen.append(dict(everywhere))
        return [user.user_id for user in waiting]

    offers = {
        name: Offer(9, [f"http://{name}"] * 3, decide, everywhere=True) for name in ("x", "y")
    }
    claims = await store.claim(offers)
    # The claims of one service count for the next one.
    assert seen == [{}, {1: 1, 3: 1}]
    assert claims["y"].everywhere == {1: 1, 3: 1}
    await store.claim(offers)
    assert seen[2] == {1: 2, 2: 1, 3: 1}


async def test_first_attempts_take_tokens_that_come_back_with_time(
    open_job_store: OpenStore,
) -> None:
    clock, rate = Clock(), Rate(per_hour=60, burst=2)
    async with open_job_store(clock) as store:
        for number in range(5):
            await store.create(f"u{number}", 1, "x")

        async def claimed(slots: int) -> Sequence[Job]:
            def decide(
                _: int, slots: int, waiting: Sequence[WaitingUser], __: object
            ) -> Sequence[int]:
                (user,) = waiting
                return [user.user_id] * int(user.tokens or 0)

            offers = {"x": Offer(9, [CLIENT] * slots, decide, rate_of=lambda _: rate)}
            return (await store.claim(offers))["x"].jobs

        first, _ = await claimed(4)
        assert await claimed(4) == []
        assert await store.queue.tokens(1, rate) == pytest.approx(0)
        assert await store.queue.tokens(2, rate) == 2
        clock.at += 60
        await requeue(store, first)
        # The second attempt takes no token.
        assert [job.id for job in await claimed(1)] == [first.id]
        assert [job.id for job in await claimed(1)] == [3]
        assert await claimed(1) == []
        clock.at += 3600
        assert await store.queue.tokens(1, rate) == 2
    async with open_job_store(clock) as store:
        assert await store.queue.tokens(1, rate) == 2


async def test_slot_that_is_offered_to_two_services_is_taken_once(store: JobStore) -> None:
    for number, service in enumerate(("x", "y", "y")):
        await store.create(f"u{number}", 1, service)
    offered = []

    def decide(active: int, slots: int, waiting: Sequence[WaitingUser], _: object) -> Sequence[int]:
        offered.append(slots)
        return [user.user_id for user in waiting for _ in range(user.queued)]

    offers = {name: Offer(9, [CLIENT, "http://other", CLIENT], decide) for name in ("x", "y")}
    claims = await store.claim(offers)
    assert sum(offered[:2]) == 3
    taken = [job.client for claim in claims.values() for job in claim.jobs]
    assert sorted(taken, key=str) == sorted([CLIENT, CLIENT, "http://other"])


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    users=st.lists(st.tuples(st.integers(1, 4), st.integers(-2, 2)), min_size=1, max_size=12),
    slots=st.integers(0, 6),
    order=st.sampled_from(Order),
)
async def test_rehearsal_decides_as_the_claim_does_and_claims_nothing(
    open_job_store: OpenStore, users: Sequence[tuple[int, int]], slots: int, order: Order
) -> None:
    policy, limits = policies()[order], Limits(per_user=3, per_service=5)

    def decide(
        active: int,
        free: int,
        waiting: Sequence[WaitingUser],
        everywhere: Mapping[int, int],
    ) -> Sequence[int]:
        return policy.choose(limits, active, free, waiting, everywhere)

    async with open_job_store() as store:
        for user, priority in users:
            await store.create(uuid4().hex, user, "x", JobOptions(priority=priority))
        offers = {"x": Offer(5, [CLIENT] * slots, decide, in_order=policy.in_order)}
        before = await store.events.last_id()
        rehearsal = await store.queue.rehearse(offers, "x")
        assert await store.events.last_id() == before
        claims = await store.claim(offers)
        jobs = claims["x"].jobs if "x" in claims else []
        assert [start.user_id for start in rehearsal.starts] == [job.user_id for job in jobs]
        for job in jobs:
            await store.transition(job, JobStatus.KILLED, "done")
        for waiting in rehearsal.waiting:
            for queued in waiting.next:
                if queued.id not in {job.id for job in jobs}:
                    await store.request_kill(queued.id)
