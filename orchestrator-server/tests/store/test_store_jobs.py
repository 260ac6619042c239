"""Contract of ``JobStore``: jobs and the compare-and-set changes of their status."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from job_orchestrator.common.status import FINAL_JOB, JobStatus, TransitionRefused, may_become
from job_orchestrator.server.errors import JobNotFound
from job_orchestrator.server.model import Job, JobOptions
from job_orchestrator.server.store.base import JobStore
from job_orchestrator.server.store.queue import MAX_AHEAD
from stores import (
    CLIENT,
    IMPLEMENTATIONS,
    Clock,
    Implementation,
    OpenStore,
    claim,
    requeue,
    stored_output,
)

S = JobStatus


async def submitted(store: JobStore, uuid: str = "u", user_id: int = 1) -> Job:
    """Create a job that its client has accepted."""
    created = await store.create(uuid, user_id, "x")
    claimed = {job.id: job for job in await claim(store, 10)}
    return await store.transition(claimed[created.id], S.SUBMITTED, "", dest_id=created.id)


async def test_created_job_is_queued_with_its_history(store: JobStore) -> None:
    job = await store.create("u", -5, "x")
    assert (job.id, job.status, job.user_id, job.attempt) == (1, S.QUEUED, -5, 0)
    (change,) = await store.lists.history(job)
    assert (change.before, change.to) == (None, S.QUEUED)


async def test_created_job_has_the_options_of_its_submission(store: JobStore) -> None:
    options = JobOptions("a name", "a tag", 3, 60.0, "http://x/", "key")
    job = await store.create("u", 1, "x", options, input_bytes=7)
    assert await store.get(job.id) == job
    assert (job.name, job.tag, job.priority, job.time_limit_s, job.callback_url) == (
        "a name",
        "a tag",
        3,
        60.0,
        "http://x/",
    )
    assert job.input_bytes == 7


async def test_idempotency_key_of_a_user_names_one_job(store: JobStore) -> None:
    options = JobOptions(idempotency_key="k")
    job = await store.create("u1", 1, "x", options)
    assert await store.create("u2", 1, "x", options) == job
    assert (await store.create("u3", 2, "x", options)).id != job.id


async def test_idempotency_key_of_concurrent_submissions_names_one_job(store: JobStore) -> None:
    options = JobOptions(idempotency_key="k")
    jobs = await asyncio.gather(*(store.create(f"u{n}", 1, "x", options) for n in range(10)))
    assert len({job.id for job in jobs}) == 1


async def test_get_of_an_unknown_job_raises(store: JobStore) -> None:
    with pytest.raises(JobNotFound, match="Job 7 not found in the database"):
        await store.get(7)


async def test_request_to_terminate_an_unknown_job_raises(store: JobStore) -> None:
    with pytest.raises(JobNotFound, match="Job 7 not found in the database"):
        await store.request_kill(7)


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
@given(path=st.lists(st.sampled_from(S), max_size=8))
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_store_allows_exactly_the_transitions_of_the_table(
    path: list[JobStatus], name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("store")

    async def walk() -> None:
        async with IMPLEMENTATIONS[name].open(folder, Clock()) as store:
            job = await store.create("u", 1, "x")
            history = [S.QUEUED]
            for wanted in path:
                # A queued job fails only with a job that it waits for.
                by_dependency = (history[-1], wanted) == (S.QUEUED, S.FAILED)
                if by_dependency or not may_become(history[-1], wanted):
                    with pytest.raises(TransitionRefused) as refused:
                        await store.transition(job, wanted, "why")
                    assert refused.value.current is history[-1]
                    continue
                changed = await store.transition(job, wanted, "why")
                history.append(wanted)
                assert (changed.ended_at is not None) == bool(FINAL_JOB.intersection(history))
            changes = await store.lists.history(job)
            assert [change.to for change in changes] == history
            assert [change.before for change in changes] == [None, *history[:-1]]

    asyncio.run(walk())


async def test_transition_keeps_fields_that_are_not_given(store: JobStore) -> None:
    job = await submitted(store)
    running = await store.transition(job, S.RUNNING, "runs")
    output = stored_output(5)
    ended = await store.transition(running, S.FAILED, "failed", exit_code=3, output=output)
    assert (ended.output_bytes, ended.output_sha256) == (output.size, output.sha256)
    cleaned = await store.transition(ended, S.CLEANED, "removed")
    assert (running.dest_id, running.exit_code, running.has_output) == (job.dest_id, None, False)
    assert (ended.exit_code, ended.output_bytes, ended.has_output) == (3, 5, True)
    assert (cleaned.message, cleaned.exit_code, cleaned.output_bytes) == ("removed", 3, 5)


async def test_start_of_a_job_that_was_not_seen_running_is_its_end(
    open_job_store: OpenStore,
) -> None:
    clock = Clock(10.0)
    async with open_job_store(clock) as store:
        job = await submitted(store)
        clock.at = 20.0
        ended = await store.transition(job, S.COMPLETED, "")
    assert (ended.started_at, ended.ended_at) == (20.0, 20.0)


async def test_deferred_transition_precedes_later_changes_of_the_job(store: JobStore) -> None:
    job = await submitted(store)
    await asyncio.gather(
        store.transition(job, S.RUNNING, "", deferred=True),
        store.transition(job, S.COMPLETED, ""),
    )
    changes = await store.lists.history(job)
    assert [change.to for change in changes][-2:] == [S.RUNNING, S.COMPLETED]


async def test_late_answer_about_an_earlier_attempt_is_refused(store: JobStore) -> None:
    await store.create("u", 1, "x")
    (first,) = await claim(store)
    await requeue(store, first, counts=True)
    await claim(store)
    with pytest.raises(TransitionRefused):
        await store.transition(first, S.FAILED, "late")
    assert (await store.get(1)).status is S.PROCESSING


@pytest.mark.parametrize(
    ("counts", "tries", "status"), [(True, 3, S.FAILED), (True, 2, S.QUEUED), (False, 9, S.QUEUED)]
)
async def test_requeue_fails_the_job_after_its_attempts(
    store: JobStore, counts: bool, tries: int, status: JobStatus
) -> None:
    await store.create("u", 1, "x")
    for _ in range(tries):
        (job,) = await claim(store)
        job = await requeue(store, job, counts=counts)
    assert (job.status, job.message) == (status, "lost")
    assert (job.ended_at is not None) == (status is S.FAILED)


async def test_requeued_job_waits_for_its_delay(open_job_store: OpenStore) -> None:
    clock = Clock()
    async with open_job_store(clock) as store:
        await store.create("u", 1, "x")
        (job,) = await claim(store)
        job = await store.requeue(
            job, "busy", delay_s=3600, max_attempts=3, counts=False, may_still_run=False
        )
        assert job.status is S.QUEUED
        assert await claim(store) == []
        clock.at += 3600
        assert [job.id for job in await claim(store)] == [1]


async def test_requeue_of_a_job_to_terminate_kills_it(store: JobStore) -> None:
    await store.create("u", 1, "x")
    await claim(store)
    await store.request_kill(1)
    job = await requeue(store, await store.get(1), counts=True)
    assert (job.status, job.message) == (S.KILLED, "Terminated on request")


@pytest.mark.parametrize("may_still_run", [True, False])
async def test_requeue_records_an_attempt_that_may_still_run(
    store: JobStore, may_still_run: bool
) -> None:
    await store.create("u", 1, "x")
    (job,) = await claim(store)
    await store.requeue(
        job, "", delay_s=0, max_attempts=3, counts=False, may_still_run=may_still_run
    )
    assert await store.abandoned.of(CLIENT, 60) == ({job.key} if may_still_run else set())


async def test_requeue_that_is_refused_records_no_abandoned_attempt(store: JobStore) -> None:
    job = await submitted(store)
    await store.transition(job, S.COMPLETED, "")
    with pytest.raises(TransitionRefused):
        await store.requeue(job, "", delay_s=0, max_attempts=3, counts=False, may_still_run=True)
    assert await store.abandoned.of(CLIENT, 60) == set()


async def test_abandoned_attempts_are_those_of_the_client_until_forgotten_or_too_old(
    open_job_store: OpenStore,
) -> None:
    clock = Clock()
    async with open_job_store(clock) as store:
        await store.create("u", 1, "x")
        (job,) = await claim(store)
        await store.requeue(job, "", delay_s=0, max_attempts=3, counts=False, may_still_run=True)
        (again,) = await claim(store)
        await store.requeue(again, "", delay_s=0, max_attempts=3, counts=False, may_still_run=True)
    async with open_job_store(clock) as store:
        assert await store.abandoned.of("http://other/submit", 60) == set()
        assert await store.abandoned.of(CLIENT, 60) == {job.key, again.key}
        await store.abandoned.forget(CLIENT, job.key)
        assert await store.abandoned.of(CLIENT, 60) == {again.key}
        clock.at += 61
        assert await store.abandoned.of(CLIENT, 60) == set()


async def test_request_to_terminate_is_recorded_within_the_status(store: JobStore) -> None:
    await store.create("u", 1, "x")
    job = await store.request_kill(1)
    assert (job.status, job.kill_requested) == (S.QUEUED, True)
    assert await store.get(1) == job


async def test_request_to_terminate_leaves_an_ended_job_unchanged(store: JobStore) -> None:
    job = await store.create("u", 1, "x")
    job = await store.transition(job, S.KILLED, "")
    assert await store.request_kill(1) == job
    assert (await store.get(1)).kill_requested is False


async def test_output_is_kept_for_the_attempt_that_ended(store: JobStore) -> None:
    job = await submitted(store)
    await store.keep_output(job, stored_output(1))
    assert not (await store.get(1)).has_output, "the job has not ended"
    ended = await store.transition(job, S.KILLED, "")
    await store.keep_output(ended, stored_output(9))
    kept = await store.get(1)
    assert (kept.has_output, kept.output_bytes, kept.status) == (True, 9, S.KILLED)


async def test_lost_client_makes_its_dispatched_jobs_unknown(store: JobStore) -> None:
    dispatched = await submitted(store)
    await store.create("u2", 1, "x")
    (processing,) = await claim(store)
    assert await store.client_lost("http://other/submit", "gone") == []
    (lost,) = await store.client_lost(CLIENT, "gone")
    assert (lost.id, lost.status, lost.message) == (dispatched.id, S.UNKNOWN, "gone")
    assert (await store.get(processing.id)).status is S.PROCESSING


async def test_active_jobs_of_a_client_are_those_it_has_or_is_being_sent(store: JobStore) -> None:
    first = await submitted(store)
    second = await submitted(store, "u2")
    await store.transition(second, S.COMPLETED, "")
    await store.create("u3", 1, "x")
    (third,) = await claim(store)
    await store.create("u4", 1, "x")
    assert [job.id for job in await store.processing()] == [third.id]
    assert {job.id for job in await store.active(CLIENT)} == {first.id, third.id}
    assert await store.active("http://other/submit") == []
    assert await store.dispatched_to() == [CLIENT]


async def test_unknown_jobs_are_found_after_a_time(open_job_store: OpenStore) -> None:
    clock = Clock()
    async with open_job_store(clock) as store:
        await submitted(store)
        await store.client_lost(CLIENT, "gone")
        clock.at += 10
        assert await store.unknown_for(10, {}) == []
        clock.at += 1
        assert [job.id for job in await store.unknown_for(10, {})] == [1]
        (job,) = await store.unknown_for(10, {"other": 20})
        assert await store.unknown_for(10, {job.service: 20}) == []
        assert await store.unknown_for(100, {job.service: 10}) == [job]


async def test_killed_jobs_without_output_are_found_for_a_time(open_job_store: OpenStore) -> None:
    clock = Clock()
    async with open_job_store(clock) as store:
        never_sent = await store.create("u0", 1, "x")
        await store.transition(never_sent, S.KILLED, "")
        jobs = [await submitted(store, f"u{number}") for number in (1, 2, 3)]
        for job in jobs[:2]:
            await store.transition(job, S.KILLED, "")
        await store.transition(jobs[2], S.FAILED, "")
        await store.keep_output(await store.get(jobs[1].id), stored_output(5))
        assert [job.id for job in await store.killed_without_output(10)] == [jobs[0].id]
        clock.at += 11
        assert await store.killed_without_output(10) == []


async def test_ended_jobs_are_due_for_removal_oldest_first(open_job_store: OpenStore) -> None:
    clock = Clock()
    async with open_job_store(clock) as store:
        for number in (1, 2, 3):
            await store.create(f"u{number}", 1, "x")
        for job_id in (2, 1):
            await store.transition(await store.get(job_id), S.KILLED, "")
            clock.at += 1
        assert [job.id for job in await store.ended_before(0, 10)] == [2, 1]
        assert [job.id for job in await store.ended_before(1.5, 10)] == [2]
        assert [job.id for job in await store.ended_before(0, 1)] == [2]
        await store.transition(await store.get(2), S.CLEANED, "")
        assert [job.id for job in await store.ended_before(0, 10)] == [1]


async def test_jobs_ahead_are_those_of_the_same_user_and_service(store: JobStore) -> None:
    await store.create("other user", 2, "x")
    await store.create("other service", 1, "y")
    low = await store.create("low", 1, "x", JobOptions(priority=-1))
    first = await store.create("first", 1, "x")
    second = await store.create("second", 1, "x")
    high = await store.create("high", 1, "x", JobOptions(priority=1))
    ahead = [await store.queue.ahead(job) for job in (high, first, second, low)]
    assert ahead == [0, 1, 2, 3]


async def test_jobs_ahead_are_counted_up_to_a_limit(store: JobStore) -> None:
    await asyncio.gather(*(store.create(f"u{n}", 1, "x") for n in range(MAX_AHEAD + 2)))
    last = await store.get(MAX_AHEAD + 2)
    assert await store.queue.ahead(last) == MAX_AHEAD


async def test_known_uuids_are_those_of_jobs_whose_files_are_kept(store: JobStore) -> None:
    for uuid in ("kept", "cleaned"):
        await store.create(uuid, 1, "x")
    job = await store.transition(await store.get(2), S.KILLED, "")
    assert await store.known(["kept", "cleaned", "strange"]) == {"kept", "cleaned"}
    await store.transition(job, S.CLEANED, "")
    assert await store.known(["kept", "cleaned", "strange"]) == {"kept"}


async def test_reopened_store_keeps_its_jobs(open_job_store: OpenStore) -> None:
    async with open_job_store() as store:
        await store.create("u", 1, "x")
    async with open_job_store() as store:
        assert (await store.get(1)).uuid == "u"
        assert (await store.create("v", 1, "x")).id == 2


async def test_change_of_a_caller_that_is_cancelled_is_completed(
    open_job_store: OpenStore, implementation: Implementation, tmp_path: Path
) -> None:
    async with open_job_store() as store:
        task = asyncio.create_task(store.create("u", 1, "x"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await store.get(1)).uuid == "u"
    assert await asyncio.to_thread(implementation.problems, tmp_path) == []


async def test_store_that_works_passes_its_check(store: JobStore) -> None:
    await store.check()
