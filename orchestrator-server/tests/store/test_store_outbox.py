"""Contract of ``JobStore.outbox``: one callback for each end of a job that asked for it."""

from job_orchestrator.common.status import JobStatus
from job_orchestrator.server.model import Job, JobOptions
from job_orchestrator.server.store.base import JobStore
from stores import Clock, OpenStore, claim, requeue

S = JobStatus


async def job_with_callback(store: JobStore, uuid: str = "u") -> Job:
    return await store.create(uuid, 1, "x", JobOptions(callback_url="http://x/"))


async def due(store: JobStore, limit: int = 10) -> list[tuple[int, int]]:
    return [(each.job.id, each.attempts) for each in await store.outbox.due(limit)]


async def test_callback_is_due_from_the_end_of_the_job_until_done(
    open_job_store: OpenStore,
) -> None:
    async with open_job_store() as store:
        job = await job_with_callback(store)
        (claimed,) = await claim(store)
        assert await due(store) == []
        ended = await store.transition(claimed, S.FAILED, "")
    async with open_job_store() as store:
        (callback,) = await store.outbox.due(10)
        assert (callback.job, callback.attempts) == (ended, 0)
        await store.outbox.done(job.id)
        assert await due(store) == []


async def test_job_without_a_callback_url_has_no_callback(store: JobStore) -> None:
    await store.transition(await store.create("u", 1, "x"), S.KILLED, "")
    assert await due(store) == []


async def test_last_attempt_of_a_job_makes_its_callback_due(store: JobStore) -> None:
    await job_with_callback(store)
    for ends in (False, False, True):
        (job,) = await claim(store)
        await requeue(store, job, counts=True)
        assert await due(store) == ([(1, 0)] if ends else [])


async def test_removal_of_files_makes_no_callback_due(store: JobStore) -> None:
    job = await store.transition(await job_with_callback(store), S.KILLED, "")
    await store.outbox.done(job.id)
    await store.transition(job, S.CLEANED, "")
    assert await due(store) == []


async def test_failed_callback_is_due_again_after_its_delay(open_job_store: OpenStore) -> None:
    clock = Clock()
    async with open_job_store(clock) as store:
        job = await store.transition(await job_with_callback(store), S.KILLED, "")
        await store.outbox.later(job.id, 60)
        assert await due(store) == []
        clock.at += 60
        assert await due(store) == [(1, 1)]


async def test_callbacks_are_due_longest_first_up_to_a_limit(open_job_store: OpenStore) -> None:
    clock = Clock()
    async with open_job_store(clock) as store:
        jobs = [await job_with_callback(store, f"u{number}") for number in range(3)]
        for job in reversed(jobs):
            await store.transition(job, S.KILLED, "")
            clock.at += 1
        assert await due(store) == [(3, 0), (2, 0), (1, 0)]
        assert await due(store, limit=2) == [(3, 0), (2, 0)]
