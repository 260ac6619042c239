"""Contract of ``JobStore``: dependent jobs wait for others, and end with those that they need."""

import asyncio

import pytest

from job_orchestrator.common.status import JobStatus
from job_orchestrator.server.errors import InvalidSubmission
from job_orchestrator.server.model import Job, JobOptions
from job_orchestrator.server.store.base import JobStore
from stores import Clock, Database, OpenStore, claim, requeue


async def add(
    store: JobStore, uuid: str, *, after: tuple[int, ...] = (), end: tuple[int, ...] = ()
) -> Job:
    return await store.create(uuid, 1, "x", JobOptions(after_success=after, after_end=end))


async def ended(store: JobStore, job: Job, status: JobStatus) -> None:
    """End a job in ``status``, which is in the queue."""
    if status is not JobStatus.KILLED:
        (claimed,) = await claim(store)
        assert claimed.id == job.id
        job = await store.transition(claimed, JobStatus.SUBMITTED, "", dest_id=1)
    await store.transition(job, status, "why")


async def test_dependent_job_is_claimed_when_the_jobs_before_it_have_completed(
    store: JobStore,
) -> None:
    first, second = await add(store, "a"), await add(store, "b")
    third = await add(store, "c", after=(first.id,), end=(second.id,))
    assert (third.status, third.open_dependencies) == (JobStatus.QUEUED, 2)
    assert (third.after_success, third.after_end) == ((first.id,), (second.id,))
    await ended(store, first, JobStatus.COMPLETED)
    assert (await store.get(third.id)).open_dependencies == 1
    await ended(store, second, JobStatus.FAILED)
    (claimed,) = await claim(store)
    assert claimed.id == third.id


@pytest.mark.parametrize("status", [JobStatus.FAILED, JobStatus.INVALID, JobStatus.KILLED])
async def test_chain_fails_with_the_job_that_was_needed(store: JobStore, status: JobStatus) -> None:
    notified: dict[int, JobStatus] = {}
    first = await add(store, "a")
    chain = [await add(store, f"{number}", after=(first.id + number,)) for number in range(3)]
    other = await add(store, "o", end=(chain[-1].id,))
    store.subscribe(lambda job: notified.update({job.id: job.status}))
    await ended(store, first, status)
    before, word = first.id, status
    for job in chain:
        failed = await store.get(job.id)
        assert failed.status is JobStatus.FAILED
        assert failed.message == f"Job {before}, which had to complete before it, is {word}"
        assert failed.ended_at is not None
        assert notified[job.id] is JobStatus.FAILED
        before, word = job.id, JobStatus.FAILED
    (claimed,) = await claim(store, 5)
    assert claimed.id == other.id


async def test_job_that_had_to_be_terminated_is_killed_with_the_job_before_it(
    store: JobStore,
) -> None:
    first = await add(store, "a")
    second = await add(store, "b", after=(first.id,))
    await store.request_kill(second.id)
    await ended(store, first, JobStatus.FAILED)
    killed = await store.get(second.id)
    assert (killed.status, killed.message) == (JobStatus.KILLED, "Terminated on request")


async def test_last_failed_attempt_ends_the_jobs_after_it(store: JobStore) -> None:
    first = await add(store, "a")
    second = await add(store, "b", after=(first.id,))
    (job,) = await claim(store)
    job = await requeue(store, job, counts=True)
    assert (await store.get(second.id)).status is JobStatus.QUEUED
    for _ in range(2):
        (job,) = await claim(store)
        job = await requeue(store, job, counts=True)
    assert job.status is JobStatus.FAILED
    assert (await store.get(second.id)).status is JobStatus.FAILED


async def test_late_message_about_a_given_up_attempt_does_not_fail_a_queued_job(
    store: JobStore,
) -> None:
    await add(store, "a")
    (job,) = await claim(store)
    await requeue(store, job)
    with pytest.raises(Exception, match="is Queued and can't become Failed"):
        await store.transition(job, JobStatus.FAILED, "late")


async def test_jobs_before_it_that_have_ended_hold_nothing_back(store: JobStore) -> None:
    first = await add(store, "a")
    await ended(store, first, JobStatus.COMPLETED)
    second = await add(store, "b", after=(first.id,))
    assert second.open_dependencies == 0
    await ended(store, second, JobStatus.FAILED)
    assert (await add(store, "c", end=(second.id,))).status is JobStatus.QUEUED
    failed = await add(store, "d", after=(second.id,))
    assert (failed.status, failed.ended_at is not None) == (JobStatus.FAILED, True)
    assert failed.message == "Job 2, which had to complete before it, is Failed"
    await store.transition(await store.get(first.id), JobStatus.CLEANED, "")
    cleaned = await add(store, "e", after=(first.id,))
    assert cleaned.status is JobStatus.FAILED
    assert "results of job 1, which it needs, were removed" in cleaned.message


async def test_dependency_on_no_job_or_the_job_of_another_user_is_refused(store: JobStore) -> None:
    await store.create("a", 2, "x")
    for missing in (1, 2, 99):
        with pytest.raises(InvalidSubmission, match=f"no job {missing} of user 1"):
            await add(store, "b", after=(missing,))
        with pytest.raises(InvalidSubmission, match=f"no job {missing} of user 1"):
            await add(store, "b", end=(missing,))
    with pytest.raises(Exception, match="not found"):
        await store.get(2)


async def test_dependencies_survive_a_restart(open_job_store: OpenStore) -> None:
    clock = Clock()
    async with open_job_store(clock) as store:
        first = await add(store, "a")
        await add(store, "b", after=(first.id,))
    async with open_job_store(clock) as store:
        (claimed,) = await claim(store, 5)
        assert claimed.id == first.id
        submitted = await store.transition(claimed, JobStatus.SUBMITTED, "", dest_id=1)
        await store.transition(submitted, JobStatus.COMPLETED, "")
    async with open_job_store(clock) as store:
        assert [job.uuid for job in await claim(store, 5)] == ["b"]


async def test_ends_that_were_recorded_while_no_server_ran_are_applied_at_the_start(
    open_job_store: OpenStore, sqlite_database: Database
) -> None:
    async with open_job_store() as store:
        first, second = await add(store, "a"), await add(store, "b")
        await add(store, "c", after=(first.id,))
        await add(store, "d", after=(second.id,))
    with sqlite_database() as connection:
        for job, status in ((first, "Completed"), (second, "Cleaned")):
            connection.execute(
                "UPDATE jobs SET status = ?, ended_at = 1 WHERE id = ?", (status, job.id)
            )
    async with open_job_store() as store:
        assert [job.uuid for job in await claim(store, 5)] == ["c"]
        assert (await store.get(4)).status is JobStatus.FAILED


async def test_chain_of_thousands_ends_as_a_whole(store: JobStore) -> None:
    first = await add(store, "first")
    job = first
    for number in range(2000):
        job = await add(store, f"{number}", after=(job.id,))
    last = asyncio.Event()
    store.subscribe(lambda changed: last.set() if changed.id == job.id else None)
    await ended(store, first, JobStatus.KILLED)
    assert await claim(store, 5) == []
    async with asyncio.timeout(60):
        await last.wait()
    assert (await store.get(job.id)).status is JobStatus.FAILED
    assert await claim(store, 5) == []


async def test_chain_of_thousands_that_a_stop_interrupted_ends_at_the_next_start(
    open_job_store: OpenStore,
) -> None:
    async with open_job_store() as store:
        first = job = await add(store, "first")
        for number in range(1200):
            job = await add(store, f"{number}", after=(job.id,))
        await ended(store, first, JobStatus.KILLED)
    async with open_job_store() as store:
        assert (await store.get(job.id)).status is JobStatus.FAILED
