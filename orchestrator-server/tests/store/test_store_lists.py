"""Contract of ``JobStore.lists``: each filter selects exactly its jobs, page by page."""

import itertools
import random
from collections.abc import Iterator

from job_orchestrator.common.status import JobStatus
from job_orchestrator.server.model import MAX_JOB_ID, JobFilter, JobOptions
from job_orchestrator.server.store.base import JobStore
from job_orchestrator.server.store.lists import Change, Times
from stores import Clock, OpenStore, claim

S = JobStatus
USERS, SERVICES, TAGS = (-1, 0, 5, 7), ("a", "b", "z"), ("", "t", "u")
PATHS = ((), (S.KILLED,), (S.PROCESSING, S.FAILED), (S.PROCESSING, S.SUBMITTED, S.RUNNING))


def filters() -> Iterator[JobFilter]:
    for user, service, tag in itertools.product((None, 5, 6), (None, "b", "c"), (None, "t")):
        for statuses in ((), (S.FAILED,), (S.RUNNING, S.QUEUED)):
            yield JobFilter(user, service, statuses, tag)


async def fill(store: JobStore, number: int) -> None:
    choice = random.Random(1).choice  # noqa: S311 (the same jobs in each run)
    for index in range(number):
        options = JobOptions(tag=choice(TAGS))
        job = await store.create(f"u{index}", choice(USERS), choice(SERVICES), options)
        for status in choice(PATHS):
            job = await store.transition(job, status, "")


async def test_filter_lists_exactly_its_jobs_page_by_page(store: JobStore) -> None:
    await fill(store, 200)
    everything = await store.lists.page(JobFilter(), MAX_JOB_ID, 1000)
    assert [job.id for job in everything] == list(range(200, 0, -1))
    for wanted in filters():
        expected = [
            job.id
            for job in everything
            if wanted.user_id in (None, job.user_id)
            and wanted.service in (None, job.service)
            and wanted.tag in (None, job.tag)
            and (not wanted.statuses or job.status in wanted.statuses)
        ]
        found: list[int] = []
        before = MAX_JOB_ID
        while page := await store.lists.page(wanted, before, 7):
            assert len(page) <= 7
            found += [job.id for job in page]
            before = found[-1]
        assert found == expected, wanted


async def test_history_of_a_job_has_its_changes_with_times_and_reasons(
    open_job_store: OpenStore,
) -> None:
    clock = Clock(10.0)
    async with open_job_store(clock) as store:
        job = await store.create("u", 1, "x")
        clock.at = 20.0
        await store.transition(job, S.KILLED, "no longer needed")
        assert await store.lists.history(job) == [
            Change(10.0, None, S.QUEUED, ""),
            Change(20.0, S.QUEUED, S.KILLED, "no longer needed"),
        ]


async def test_unended_jobs_are_counted_by_service_and_status(store: JobStore) -> None:
    for number, service in enumerate("xxxyy"):
        await store.create(f"u{number}", number, service)
    (job,) = await claim(store)
    await store.transition(await store.get(4), S.KILLED, "")
    assert await store.lists.unended() == {
        ("x", S.PROCESSING): 1,
        ("x", S.QUEUED): 2,
        ("y", S.QUEUED): 1,
    }
    await store.transition(job, S.FAILED, "")
    assert ("x", S.PROCESSING) not in await store.lists.unended()


async def test_times_of_the_latest_jobs_are_listed_newest_first(open_job_store: OpenStore) -> None:
    clock = Clock(10.0)
    async with open_job_store(clock) as store:
        await store.create("u1", 1, "x")
        (job,) = await claim(store)
        clock.at = 20.0
        job = await store.transition(job, S.SUBMITTED, "")
        job = await store.transition(job, S.RUNNING, "")
        await store.create("u2", 1, "y")
        clock.at = 30.0
        await store.transition(job, S.COMPLETED, "")
        newest = Times("y", S.QUEUED, 20.0, None, None)
        assert await store.lists.latest(9) == [newest, Times("x", S.COMPLETED, 10.0, 20.0, 30.0)]
        assert await store.lists.latest(1) == [newest]
