"""Contract of ``JobStore.subscribe``: what is notified, when, and in which order."""

import asyncio

import pytest

from job_orchestrator.common.status import JobStatus, TransitionRefused
from job_orchestrator.server.errors import TooMuchStored
from job_orchestrator.server.model import Job, JobOptions
from job_orchestrator.server.store.base import JobStore
from job_orchestrator.server.store.limits import UserLimits
from stores import CLIENT, claim, requeue, stored_output

S = JobStatus


@pytest.fixture
def notified(store: JobStore) -> list[Job]:
    jobs: list[Job] = []
    store.subscribe(jobs.append)
    return jobs


async def test_subscriber_is_notified_of_each_change_with_the_job_as_it_then_is(
    store: JobStore, notified: list[Job]
) -> None:
    changed = [await store.create("u", 1, "x")]
    changed += await claim(store)
    changed.append(await store.transition(changed[-1], S.SUBMITTED, "", dest_id=1))
    changed += await store.client_lost(CLIENT, "gone")
    changed.append(await requeue(store, changed[-1]))
    changed.append(await store.request_kill(1))
    changed.append(await store.transition(changed[-1], S.KILLED, ""))
    await store.keep_output(changed[-1], stored_output(5))
    changed.append(await store.get(1))
    assert notified == changed


async def test_subscriber_is_notified_before_the_change_returns(store: JobStore) -> None:
    seen: list[str] = []
    store.subscribe(lambda job: seen.append(f"notified of {job.id}"))
    job = await store.create("u", 1, "x")
    seen.append(f"returned {job.id}")
    assert seen == ["notified of 1", "returned 1"]


async def test_subscribers_are_notified_in_the_order_of_subscription(store: JobStore) -> None:
    seen: list[tuple[str, int]] = []
    for name in "bac":
        store.subscribe(
            lambda job, name=name: seen.append((name, job.id)),  # type: ignore[misc]
            status_changes_only=name == "a",
        )
    await store.create("u", 1, "x")
    await store.create("v", 1, "x")
    assert seen == [("b", 1), ("a", 1), ("c", 1), ("b", 2), ("a", 2), ("c", 2)]


async def test_concurrent_changes_of_a_job_are_notified_in_commit_order(
    store: JobStore, notified: list[Job]
) -> None:
    await store.create("u", 1, "x")
    (job,) = await claim(store)
    job = await store.transition(job, S.SUBMITTED, "")
    outcomes = await asyncio.gather(
        store.transition(job, S.RUNNING, "", deferred=True),
        store.request_kill(1),
        store.transition(job, S.KILLED, ""),
        store.transition(job, S.COMPLETED, ""),
        return_exceptions=True,
    )
    assert isinstance(outcomes[-1], TransitionRefused)
    changes = await store.lists.history(job)
    assert [job.status for job in notified if not job.kill_requested][-2:] == [
        S.SUBMITTED,
        S.RUNNING,
    ]
    assert notified[-1] == await store.get(1)
    assert notified[-1].status is changes[-1].to


async def test_subscriber_to_status_changes_is_not_notified_of_others(store: JobStore) -> None:
    jobs: list[Job] = []
    store.subscribe(jobs.append, status_changes_only=True)
    job = await store.create("u", 1, "x")
    job = await store.request_kill(job.id)
    job = await store.transition(job, S.KILLED, "")
    await store.keep_output(job, stored_output(5))
    assert [job.status for job in jobs] == [S.QUEUED, S.KILLED]


async def test_call_without_a_change_notifies_no_subscriber(
    store: JobStore, notified: list[Job]
) -> None:
    options = JobOptions(idempotency_key="k")
    job = await store.create("u", 1, "x", options)
    job = await store.transition(job, S.KILLED, "")
    notified.clear()
    assert await store.create("v", 1, "x", options) == job
    await store.request_kill(1)
    assert await store.client_lost(CLIENT, "gone") == []
    assert await claim(store) == []
    with pytest.raises(TransitionRefused):
        await store.transition(job, S.RUNNING, "")
    with pytest.raises(TooMuchStored):
        await store.create("w", 1, "x", input_bytes=2, limits=UserLimits(max_stored=1))
    assert notified == []


async def test_failing_subscriber_fails_the_call_but_not_the_change(store: JobStore) -> None:
    def fails(job: Job) -> None:
        raise ValueError("no")

    store.subscribe(fails)
    with pytest.raises(ValueError, match="no"):
        await store.create("u", 1, "x")
    assert (await store.get(1)).status is S.QUEUED
