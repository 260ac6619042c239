"""Contract of ``JobStore``: arrays of jobs share their files and the limit of active tasks."""

import time
from collections.abc import Sequence

import pytest

from job_orchestrator.common.messages.arrays import ArrayTask
from job_orchestrator.common.status import JobStatus
from job_orchestrator.server.errors import (
    ArrayNotFound,
    InvalidSubmission,
    RateExceeded,
    TooManyQueued,
    TooMuchStored,
)
from job_orchestrator.server.model import Job, JobFilter, JobOptions, Rate
from job_orchestrator.server.store.arrays import ArrayRequest
from job_orchestrator.server.store.base import NO_LIMITS, JobStore
from job_orchestrator.server.store.limits import UserLimits
from stores import OpenStore, claim


async def add(
    store: JobStore,
    indexes: Sequence[int],
    max_active: int | None = None,
    *,
    uuid: str = "array",
    key: str | None = None,
    after: tuple[int, ...] = (),
    end: tuple[int, ...] = (),
    limits: UserLimits = NO_LIMITS,
) -> tuple[Job, bool]:
    options = JobOptions(idempotency_key=key, after_success=after, after_end=end)
    request = ArrayRequest(indexes, len(indexes) if max_active is None else max_active)
    return await store.arrays.create(
        uuid, 1, "x", options, request, input_bytes=7, inputs=b"files", limits=limits
    )


async def end(store: JobStore, job: Job, status: JobStatus = JobStatus.COMPLETED) -> Job:
    """End a claimed job."""
    job = await store.transition(job, JobStatus.SUBMITTED, "", dest_id=1)
    return await store.transition(job, status, "why")


async def test_tasks_are_jobs_with_ids_and_indexes_in_order(store: JobStore) -> None:
    notified: list[int] = []
    store.subscribe(lambda job: notified.append(job.id))
    first, is_new = await add(store, [3, 5, 9])
    array = await store.arrays.get(first.id)
    tasks = await store.arrays.tasks(array, 0, 10)

    assert is_new
    assert [task.id for task in tasks] == notified == [first.id, first.id + 1, first.id + 2]
    assert [task.task for task in tasks] == [ArrayTask(first.id, n, 3) for n in (3, 5, 9)]
    assert (array.size, array.last, array.unended, array.kept) == (3, first.id + 2, 3, 3)
    assert [job.id for job in await claim(store, 5)] == notified[:3]
    assert [await store.inputs(task) for task in tasks] == [b"files"] * 3


async def test_next_task_is_released_by_the_end_of_one(store: JobStore) -> None:
    first, _ = await add(store, range(1, 6), max_active=2)
    active = await claim(store, 5)
    assert [job.array_index for job in active] == [1, 2]
    assert await claim(store, 5) == []

    await end(store, active[1], JobStatus.FAILED)
    (third,) = await claim(store, 5)
    assert third.array_index == 3
    # The end of a task that waits releases none.
    await store.transition(await store.get(first.id + 4), JobStatus.KILLED, "")
    assert await claim(store, 5) == []
    await end(store, third)
    (fourth,) = await claim(store, 5)
    assert fourth.array_index == 4
    await end(store, active[0])
    await end(store, fourth)
    assert (await store.arrays.get(first.id)).unended == 0
    assert await store.arrays.counts(first.id) == {
        JobStatus.COMPLETED: 3,
        JobStatus.FAILED: 1,
        JobStatus.KILLED: 1,
    }


async def test_job_after_an_array_waits_for_all_of_its_tasks(store: JobStore) -> None:
    first, _ = await add(store, [1, 2])
    after = await store.create("after", 1, "x", JobOptions(after_success=(first.id,)))
    last, _ = await add(store, [1, 2], uuid="second", end=(first.id,))
    active = await claim(store, 9)
    assert len(active) == 2
    await end(store, active[0])
    assert await claim(store, 9) == []
    await end(store, active[1])
    assert [job.id for job in await claim(store, 9)] == [after.id, last.id, last.id + 1]


async def test_failed_task_fails_the_jobs_that_need_the_array(store: JobStore) -> None:
    first, _ = await add(store, [1, 2])
    needs = await store.create("needs", 1, "x", JobOptions(after_success=(first.id,)))
    waits = await store.create("waits", 1, "x", JobOptions(after_end=(first.id,)))
    active = await claim(store, 9)
    await end(store, active[1], JobStatus.FAILED)
    failed = await store.get(needs.id)
    assert failed.status is JobStatus.FAILED
    assert failed.message == f"Job {first.id + 1}, which had to complete before it, is Failed"
    assert (await store.get(waits.id)).open_dependencies == 1
    await end(store, active[0])
    assert [job.id for job in await claim(store, 9)] == [waits.id]
    late = await store.create("late", 1, "x", JobOptions(after_success=(first.id,)))
    assert late.status is JobStatus.FAILED


async def test_array_that_needs_a_failed_job_fails_as_a_whole(store: JobStore) -> None:
    needed = await store.create("needed", 1, "x")
    first, _ = await add(store, range(700), max_active=3, after=(needed.id,))
    (active,) = await claim(store, 9)
    await end(store, active, JobStatus.FAILED)
    last, _ = await add(store, [1, 2], uuid="late", after=(needed.id,))
    assert await store.arrays.counts(last.id) == {JobStatus.FAILED: 2}

    async def unended() -> int:
        return (await store.arrays.get(first.id)).unended

    deadline = time.monotonic() + 20
    while await unended() and time.monotonic() < deadline:
        await store.check()
    assert await store.arrays.counts(first.id) == {JobStatus.FAILED: 700}


async def test_key_gives_one_array_as_long_as_a_task_is_kept(store: JobStore) -> None:
    first, _ = await add(store, [1, 2], key="k")
    assert await add(store, [1, 2], key="k", uuid="again") == (first, False)
    for job in await claim(store, 9):
        ended = await end(store, job)
        assert await add(store, [1, 2], key="k", uuid="again") == (
            await store.get(first.id),
            False,
        )
        await store.transition(ended, JobStatus.CLEANED, "")
    second, is_new = await add(store, [1, 2], key="k", uuid="again")
    assert (is_new, second.id) == (True, first.id + 2)
    single = await store.create("single", 1, "x", JobOptions(idempotency_key="k"))
    assert single.id == second.id


async def test_files_are_kept_and_counted_until_the_last_task_is_cleaned(store: JobStore) -> None:
    await add(store, [1, 2])
    limits = UserLimits(max_stored=10)
    with pytest.raises(TooMuchStored):
        await store.create("other", 1, "x", input_bytes=4, limits=limits)
    one, two = [await end(store, job) for job in await claim(store, 9)]
    await store.transition(one, JobStatus.CLEANED, "")
    assert await store.inputs(two) == b"files"
    assert await store.lists.with_files(["array", "unknown"]) == {"array"}
    await store.transition(two, JobStatus.CLEANED, "")
    assert await store.lists.with_files(["array"]) == set()
    await store.create("other", 1, "x", input_bytes=10, limits=limits)


async def test_limits_refuse_all_tasks_or_none(store: JobStore) -> None:
    queued = UserLimits(max_queued=3)
    await add(store, [1, 2], limits=queued)
    with pytest.raises(TooManyQueued, match="has 2 queued jobs, and may have 3; these are 2"):
        await add(store, [1, 2], uuid="b", limits=queued)
    with pytest.raises(InvalidSubmission, match="at most 3 tasks; this one has 4"):
        await add(store, [1, 2, 3, 4], uuid="b", limits=queued)
    rate = UserLimits(rate=Rate(60, 3))
    await add(store, [1, 2], uuid="c", limits=rate)
    with pytest.raises(RateExceeded) as refused:
        await add(store, [1, 2], uuid="d", limits=rate)
    assert refused.value.retry_after_s == 60
    assert len(await store.lists.page(JobFilter(), 100, 100)) == 4


async def test_array_is_listed_newest_first_in_pages(store: JobStore) -> None:
    first, _ = await add(store, [1, 2, 3])
    await store.create("other", 1, "x")
    page = await store.lists.page(JobFilter(array_id=first.id), 10**9, 2)
    assert [job.array_index for job in page] == [3, 2]
    rest = await store.lists.page(JobFilter(array_id=first.id), page[-1].id, 2)
    assert [job.array_index for job in rest] == [1]
    running = JobFilter(user_id=1, statuses=[JobStatus.RUNNING], array_id=first.id)
    assert await store.lists.page(running, 10**9, 2) == []
    assert await store.lists.page(JobFilter(user_id=2, array_id=first.id), 10**9, 2) == []
    with pytest.raises(ArrayNotFound):
        await store.arrays.get(first.id + 1)


async def test_queued_tasks_are_killed_together(store: JobStore) -> None:
    first, _ = await add(store, range(5), max_active=2)
    (active,) = await claim(store, 1)
    await store.arrays.request_kill(first.id)
    assert (await store.get(active.id)).kill_requested
    killed = await store.arrays.kill_queued(first.id, 3)
    assert {job.id for job in killed} == {first.id + 2, first.id + 3, first.id + 4}
    assert len(await store.arrays.kill_queued(first.id, 3)) == 1
    assert await store.arrays.counts(first.id) == {JobStatus.KILLED: 4, JobStatus.PROCESSING: 1}


async def test_window_survives_a_restart(open_job_store: OpenStore) -> None:
    async with open_job_store() as store:
        first, _ = await add(store, range(3), max_active=1)
        (active,) = await claim(store, 9)
    async with open_job_store() as store:
        assert await claim(store, 9) == []
        await end(store, await store.get(active.id))
        (second,) = await claim(store, 9)
        assert second.id == first.id + 1


async def test_10_000_tasks_are_created_in_one_short_transaction(store: JobStore) -> None:
    began = time.perf_counter()
    await add(store, range(10_000), max_active=5)
    # Generous: about 0.5 s are expected.
    assert time.perf_counter() - began < 10
    assert len(await claim(store, 50)) == 5
