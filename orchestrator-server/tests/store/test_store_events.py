"""Contract of ``JobStore.events``: the log of all status changes, in commit order."""

import asyncio
import shutil
from pathlib import Path

import pytest

from job_orchestrator.common.status import JobStatus
from job_orchestrator.server.errors import JobNotFound
from job_orchestrator.server.model import Job
from job_orchestrator.server.store.base import JobStore
from job_orchestrator.server.store.sqlite.store import open_store
from stores import claim

S = JobStatus


async def test_empty_log_ends_at_zero(store: JobStore) -> None:
    assert await store.events.last_id() == 0
    assert await store.events.between(0, 100) == []


async def test_events_have_growing_numbers_and_the_job_as_it_is_now(store: JobStore) -> None:
    job = await store.create("u", 1, "x")
    killed = await store.transition(job, S.KILLED, "why")
    last = await store.events.last_id()
    queued, ended = await store.events.between(0, last)
    assert 0 < queued.id < ended.id == last
    assert (queued.status, ended.status, ended.why) == (S.QUEUED, S.KILLED, "why")
    assert (ended.at, ended.job, queued.job) == (killed.changed_at, killed, killed)


async def test_events_are_those_after_a_number_up_to_another(store: JobStore) -> None:
    for number in range(5):
        await store.create(f"u{number}", 1, "x")
    numbers = [event.id for event in await store.events.between(0, await store.events.last_id())]
    window = await store.events.between(numbers[0], numbers[3])
    assert [event.id for event in window] == numbers[1:4]


async def test_events_of_one_job_leave_out_others(store: JobStore) -> None:
    for number in range(3):
        await store.create(f"u{number}", 1, "x")
    await claim(store, 3)
    events = await store.events.between(0, await store.events.last_id(), 2)
    assert [(event.job.id, event.status) for event in events] == [(2, S.QUEUED), (2, S.PROCESSING)]


async def test_event_is_logged_by_the_time_its_subscribers_are_notified(store: JobStore) -> None:
    notified: list[Job] = []
    store.subscribe(notified.append)
    await asyncio.gather(*(store.create(f"u{n}", n, "x") for n in range(20)))
    await claim(store, 20)
    events = await store.events.between(0, await store.events.last_id())
    assert [event.job.id for event in events] == [job.id for job in notified]
    assert [event.status for event in events] == [job.status for job in notified]


async def test_changes_within_a_status_are_not_logged(store: JobStore) -> None:
    await store.create("u", 1, "x")
    before = await store.events.last_id()
    await store.request_kill(1)
    assert await store.events.last_id() == before


async def test_present_job_comes_with_the_number_of_its_last_event(store: JobStore) -> None:
    await store.create("u", 1, "x")
    await store.create("v", 1, "x")
    job = await store.transition(await store.get(1), S.KILLED, "")
    assert await store.events.present(1) == (await store.events.last_id(), job)
    assert (await store.events.present(2))[0] < await store.events.last_id()


async def test_present_of_an_unknown_job_raises(store: JobStore) -> None:
    with pytest.raises(JobNotFound, match="Job 7 not found in the database"):
        await store.events.present(7)


async def test_numbers_that_a_power_cut_took_back_are_not_used_again(
    sqlite_path: Path, tmp_path: Path
) -> None:
    """After the cut, the disk has what was durable before the last events, which a reader has."""
    disk = tmp_path / "disk"
    disk.mkdir()
    async with open_store(sqlite_path) as store:
        await store.create("a", 1, "x")
        for path in sqlite_path.parent.glob(f"{sqlite_path.name}*"):
            shutil.copy(path, disk)
        await claim(store)
        received = await store.events.last_id()
    async with open_store(disk / sqlite_path.name) as store:
        await store.create("b", 1, "x")
        assert await store.events.last_id() > received


async def test_events_are_read_in_windows_whatever_the_gaps_between_their_numbers(
    store: JobStore,
) -> None:
    for number in range(5):
        await store.create(str(number), 1, "x")
    last = await store.events.last_id()
    first = await store.events.between(0, last, limit=3)
    rest = await store.events.between(first[-1].id, last, limit=3)
    assert [event.job.uuid for event in (*first, *rest)] == ["0", "1", "2", "3", "4"]
