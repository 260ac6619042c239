"""Inputs and results that are stored with the job."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence

import pytest

from job_orchestrator.common.status import JobStatus, TransitionRefused
from job_orchestrator.server.errors import TooMuchStored
from job_orchestrator.server.model import Job, JobOptions, StoredOutput
from job_orchestrator.server.store.base import JobStore
from job_orchestrator.server.store.limits import UserLimits
from job_orchestrator.server.store.queue import Offer, WaitingUser
from stores import CLIENT, Clock, OpenStore, all_of_them, claim

S = JobStatus
BLOCK, ZIP = b"\x00inputs\xff" * 100, b"\x00results\xff" * 1000
OUTPUT = StoredOutput(len(ZIP), hashlib.sha256(ZIP).digest(), ZIP)


async def dispatched(store: JobStore) -> Job:
    """Create a job with small inputs that is at a client."""
    await store.create("u", 1, "x", input_bytes=3, inputs=BLOCK)
    (job,) = await claim(store)
    return await store.transition(job, S.SUBMITTED, "", dest_id=1)


async def completed(store: JobStore) -> Job:
    """Create a job with small inputs and small results."""
    job = await dispatched(store)
    return await store.transition(job, S.COMPLETED, "", output=OUTPUT)


async def test_inputs_and_results_are_returned_as_they_were_stored(
    open_job_store: OpenStore,
) -> None:
    async with open_job_store() as store:
        job = await completed(store)
        assert (job.has_output, job.output_bytes) == (True, len(ZIP))
        assert (await store.inputs(job), await store.result(job)) == (BLOCK, ZIP)
    async with open_job_store() as store:
        assert (await store.inputs(job), await store.result(job)) == (BLOCK, ZIP)


async def test_job_whose_files_are_elsewhere_has_none_here(store: JobStore) -> None:
    job = await store.create("u", 1, "x")
    assert (await store.inputs(job), await store.result(job)) == (None, None)


async def test_output_that_follows_the_end_is_stored_with_it(store: JobStore) -> None:
    job = await store.transition(await dispatched(store), S.KILLED, "")
    assert await store.result(job) is None
    await store.keep_output(job, OUTPUT)
    assert await store.result(job) == ZIP
    assert (await store.get(job.id)).output_bytes == len(ZIP)


async def test_refused_changes_store_nothing(store: JobStore) -> None:
    first = await dispatched(store)
    await store.transition(first, S.KILLED, "")
    with pytest.raises(TransitionRefused):
        await store.transition(first, S.COMPLETED, "", output=OUTPUT)
    assert await store.result(first) is None


async def test_repeat_of_an_idempotency_key_keeps_the_first_inputs(store: JobStore) -> None:
    options = JobOptions(idempotency_key="k")
    first = await store.create("u1", 1, "x", options, inputs=BLOCK)
    again = await store.create("u2", 1, "x", options, inputs=b"others")
    assert again.id == first.id
    assert await store.inputs(again) == BLOCK


async def test_inputs_and_results_count_towards_the_stored_bytes_until_they_are_cleaned(
    store: JobStore,
) -> None:
    job = await completed(store)
    limits = UserLimits(max_stored=len(ZIP))
    with pytest.raises(TooMuchStored):
        await store.create("u2", 1, "x", input_bytes=1, inputs=b"1", limits=limits)
    job = await store.transition(job, S.CLEANED, "old")
    assert (await store.inputs(job), await store.result(job)) == (None, None)
    await store.create("u2", 1, "x", input_bytes=1, inputs=b"1", limits=limits)


async def test_cleaned_inputs_and_results_stay_removed(open_job_store: OpenStore) -> None:
    async with open_job_store() as store:
        job = await store.transition(await completed(store), S.CLEANED, "old")
    async with open_job_store() as store:
        assert (await store.inputs(job), await store.result(job)) == (None, None)


async def test_many_large_blobs_are_all_readable(store: JobStore) -> None:
    def block(number: int) -> bytes:
        return bytes([number]) * 100_000

    jobs = [await store.create(f"u{n}", 1, "x", inputs=block(n)) for n in range(50)]
    assert [await store.inputs(job) == block(n) for n, job in enumerate(jobs)] == [True] * 50


Notified = list[tuple[int, JobStatus]]


def notifications(store: JobStore) -> Notified:
    """Return a list that grows with each notification."""
    seen: Notified = []
    store.subscribe(lambda job: seen.append((job.id, job.status)))
    return seen


async def test_claim_right_behind_a_creation_gets_the_job_and_is_notified_after_it(
    store: JobStore,
) -> None:
    assert await claim(store) == [], "the store knows that nothing is queued"
    seen = notifications(store)
    created, claimed = await asyncio.gather(
        store.create("u", 1, "x", inputs=BLOCK), claim(store), return_exceptions=False
    )
    assert [job.id for job in claimed] == [created.id]
    assert seen == [(created.id, S.QUEUED), (created.id, S.PROCESSING)]
    assert await store.inputs(claimed[0]) == BLOCK


async def test_claim_just_before_a_creation_does_not_hide_the_job(store: JobStore) -> None:
    await asyncio.gather(claim(store), store.create("u", 1, "x"))
    assert len(await claim(store)) == 1


async def test_claim_just_before_a_requeue_does_not_hide_the_job(store: JobStore) -> None:
    job = await dispatched(store)
    await asyncio.gather(
        claim(store),
        store.requeue(job, "", delay_s=0, max_attempts=3, counts=False, may_still_run=False),
    )
    assert len(await claim(store)) == 1


async def test_failed_claim_right_behind_a_creation_leaves_the_job_queued(
    store: JobStore,
) -> None:
    def fails(
        active: int, slots: int, waiting: Sequence[WaitingUser], _: object = None
    ) -> Sequence[int]:
        raise ZeroDivisionError

    created, failed = await asyncio.gather(
        store.create("u", 1, "x"),
        store.claim({"x": Offer(1, [CLIENT], fails)}),
        return_exceptions=True,
    )
    assert isinstance(created, Job)
    assert isinstance(failed, ZeroDivisionError)
    assert [job.id for job in await claim(store, decide=all_of_them)] == [created.id]


Step = Callable[[JobStore, Job], Awaitable[Job]]


async def test_deferred_changes_and_the_end_keep_their_own_times_and_order(
    open_job_store: OpenStore,
) -> None:
    clock = Clock(1000.0)
    async with open_job_store(clock) as store:
        await store.create("u", 1, "x")
        (job,) = await claim(store)
        seen = notifications(store)
        clock.at = 1010.0
        *_, ended = await asyncio.gather(
            store.transition(job, S.SUBMITTED, "", dest_id=4, at=1001.0, deferred=True),
            store.transition(job, S.RUNNING, "", at=1002.5, deferred=True),
            store.transition(job, S.COMPLETED, "", exit_code=0, acknowledge=4, at=1007.0),
        )
        assert seen == [(job.id, S.SUBMITTED), (job.id, S.RUNNING), (job.id, S.COMPLETED)]
        assert (ended.started_at, ended.ended_at, ended.dest_id) == (1002.5, 1007.0, 4)
        assert [(change.at, change.to) for change in await store.lists.history(ended)] == [
            (1000.0, S.QUEUED),
            (1000.0, S.PROCESSING),
            (1001.0, S.SUBMITTED),
            (1002.5, S.RUNNING),
            (1007.0, S.COMPLETED),
        ]


async def test_time_of_a_change_is_never_in_the_future(open_job_store: OpenStore) -> None:
    async with open_job_store(Clock(1000.0)) as store:
        job = await dispatched(store)
        assert (await store.transition(job, S.RUNNING, "", at=2000.0)).started_at == 1000.0


async def test_time_of_a_change_is_never_before_that_of_the_previous_one(
    open_job_store: OpenStore,
) -> None:
    clock = Clock(1000.0)
    async with open_job_store(clock) as store:
        job = await dispatched(store)
        clock.at = 1010.0
        running = await store.transition(job, S.RUNNING, "", at=5.0)
        assert (running.started_at, running.changed_at) == (1000.0, 1000.0)
        ended = await store.transition(running, S.FAILED, "", at=999.0)
        assert (ended.started_at, ended.ended_at) == (1000.0, 1000.0)
