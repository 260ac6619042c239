"""Contract of ``JobStore.create`` with limits: they hold for a user, however many jobs arrive."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from job_orchestrator.common.protocol.selection import ResultKind, Selection
from job_orchestrator.common.status import JobStatus
from job_orchestrator.server.errors import TooManyQueued, TooMuchStored
from job_orchestrator.server.model import Job, JobOptions
from job_orchestrator.server.store.base import JobStore
from job_orchestrator.server.store.limits import UserLimits
from stores import claim, requeue, stored_output


async def queued(store: JobStore, user_id: int = 1) -> int:
    """Return the number of queued jobs that count towards a user's limit."""
    return await _least(lambda n: store.check_limits(user_id, 0, None, UserLimits(max_queued=n)))


async def stored(store: JobStore, user_id: int = 1) -> int:
    """Return the bytes that count towards a user's limit."""
    return await _least(lambda n: store.check_limits(user_id, 1, None, UserLimits(max_stored=n)))


async def _least(check: Callable[[int], Awaitable[None]]) -> int:
    """Return the greatest limit that refuses one more job, or one more byte; 0 if none does."""
    for limit in range(1, 1000):
        try:
            await check(limit)
        except (TooManyQueued, TooMuchStored):
            continue
        return limit - 1
    raise AssertionError("no limit is enough")


async def test_repeat_is_answered_though_the_queue_is_full(store: JobStore) -> None:
    limits, options = UserLimits(max_queued=1), JobOptions(idempotency_key="k")
    first = await store.create("a", 1, "x", options, limits=limits)
    assert await store.create("b", 1, "x", options, limits=limits) == first
    with pytest.raises(TooManyQueued):
        await store.create("c", 1, "x", limits=limits)


async def test_check_before_an_upload_refuses_too_many_bytes_but_no_repeat(
    store: JobStore,
) -> None:
    limits = UserLimits(max_stored=100)
    await store.check_limits(1, 100, None, limits)
    await store.create("a", 1, "x", JobOptions(idempotency_key="k"), input_bytes=60)
    await store.check_limits(1, 40, None, limits)
    await store.check_limits(1, 41, "k", limits)
    for user, key in ((1, None), (1, "other")):
        with pytest.raises(TooMuchStored, match=r"60 bytes.* 100.* 41"):
            await store.check_limits(user, 41, key, limits)
    await store.check_limits(2, 41, "k", limits)


async def test_refusal_of_a_job_leaves_concurrent_ones_alone(store: JobStore) -> None:
    limits = UserLimits(max_queued=1)
    outcomes = await asyncio.gather(
        *(store.create(f"{n}", n % 3, "x", limits=limits) for n in range(12)),
        return_exceptions=True,
    )
    assert sum(isinstance(outcome, Job) for outcome in outcomes) == 3
    assert sum(isinstance(outcome, TooManyQueued) for outcome in outcomes) == 9


async def test_counters_follow_the_states_of_a_job(store: JobStore) -> None:
    await store.create("a", 1, "x", input_bytes=100)
    assert (await queued(store), await stored(store)) == (1, 100)
    (job,) = await claim(store)
    assert (await queued(store), await stored(store)) == (0, 100)
    await requeue(store, job, counts=True)
    assert (await queued(store), await stored(store)) == (1, 100)
    (job,) = await claim(store)
    job = await store.transition(job, JobStatus.SUBMITTED, "", dest_id=1)
    job = await store.transition(job, JobStatus.COMPLETED, "", output=stored_output(50))
    assert (await queued(store), await stored(store)) == (0, 100), "the results hold the inputs"
    await store.transition(job, JobStatus.CLEANED, "")
    assert (await queued(store), await stored(store)) == (0, 0)


@pytest.mark.parametrize(
    ("kind", "inputs", "output", "counted"),
    [
        (ResultKind.ALL, 100, 50, 100),
        (ResultKind.ALL, 100, 120, 120),
        (ResultKind.NEW, 100, 50, 150),
    ],
)
async def test_inputs_that_the_results_hold_are_not_counted_twice(
    store: JobStore, kind: ResultKind, inputs: int, output: int, counted: int
) -> None:
    options = JobOptions(selection=Selection(kind=kind))
    await store.create("a", 1, "x", options, input_bytes=inputs)
    (job,) = await claim(store)
    await store.transition(job, JobStatus.FAILED, "", output=stored_output(output))
    assert await stored(store) == counted
