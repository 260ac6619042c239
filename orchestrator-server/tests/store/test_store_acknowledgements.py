"""Contract of ``JobStore.acknowledgements``: recorded with the end of a job, until confirmed."""

import pytest

from job_orchestrator.common.status import JobStatus, TransitionRefused
from job_orchestrator.server.model import Job
from job_orchestrator.server.store.base import JobStore
from stores import CLIENT, Clock, OpenStore, claim, requeue, stored_output

S = JobStatus


async def submitted(store: JobStore, uuid: str, payload_id: int) -> Job:
    await store.create(uuid, 1, "x")
    (job,) = await claim(store)
    return await store.transition(job, S.SUBMITTED, "", dest_id=payload_id)


async def pending(store: JobStore) -> set[int]:
    return await store.acknowledgements.of(CLIENT, 60)


async def test_end_of_a_job_records_the_acknowledgement_of_its_payload(
    open_job_store: OpenStore,
) -> None:
    async with open_job_store() as store:
        job = await submitted(store, "u", 7)
        assert await pending(store) == set()
        await store.transition(job, S.COMPLETED, "", acknowledge=7)
    async with open_job_store() as store:
        assert await pending(store) == {7}
        assert await store.acknowledgements.of("http://other/submit", 60) == set()


async def test_end_that_is_refused_records_no_acknowledgement(store: JobStore) -> None:
    job = await submitted(store, "u", 7)
    await requeue(store, job)
    with pytest.raises(TransitionRefused):
        await store.transition(job, S.COMPLETED, "", acknowledge=7)
    assert await pending(store) == set()


async def test_output_of_an_ended_job_records_the_acknowledgement(store: JobStore) -> None:
    job = await submitted(store, "u", 7)
    killed = await store.transition(job, S.KILLED, "")
    assert await pending(store) == set()
    await store.keep_output(killed, stored_output(10))
    assert await pending(store) == {7}


async def test_end_of_an_abandoned_attempt_records_the_acknowledgement(store: JobStore) -> None:
    job = await submitted(store, "u", 7)
    await store.requeue(job, "", delay_s=0, max_attempts=3, counts=False, may_still_run=True)
    await store.abandoned.forget(CLIENT, job.key, acknowledge=7)
    assert await store.abandoned.of(CLIENT, 60) == set()
    assert await pending(store) == {7}


async def test_acknowledgements_stay_until_they_are_confirmed_or_too_old(
    open_job_store: OpenStore,
) -> None:
    clock = Clock()
    async with open_job_store(clock) as store:
        for payload_id in (7, 8, 9, 9):
            await store.acknowledgements.add(CLIENT, payload_id)
        await store.acknowledgements.confirmed(CLIENT, [7, 10])
        await store.acknowledgements.confirmed("http://other/submit", [8])
        assert await pending(store) == {8, 9}
        clock.at += 61
        assert await pending(store) == set()
