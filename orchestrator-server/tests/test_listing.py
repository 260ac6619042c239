"""Lists of jobs: every filter gives what it should, from an index, at a flat cost."""

import contextlib
import itertools
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from job_orchestrator.common.status import JobStatus
from job_orchestrator.server.store.base import NEWEST, JobFilter
from job_orchestrator.server.store.sqlite import listing
from job_orchestrator.server.store.sqlite.jobs import JobStore

STATES = list(JobStatus)
USERS, SERVICES, TAGS = (-1, 0, 5, 7), ("a", "b", "z"), ("", "t", "u")


def filters() -> Iterator[JobFilter]:
    for user, service, tag in itertools.product((None, 5, 6), (None, "b", "c"), (None, "t")):
        for statuses in ((), (JobStatus.FAILED,), (JobStatus.RUNNING, JobStatus.QUEUED)):
            yield JobFilter(user, service, statuses, tag)


def fill(path: Path, number: int) -> None:
    choice = random.Random(1).choice  # noqa: S311 (the same every time)
    rows = [
        (f"{number}-{i}", choice(USERS), choice(SERVICES), choice(STATES), choice(TAGS))
        for i in range(number)
    ]
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.executemany(
            "INSERT INTO jobs (uuid, user_id, service, status, tag, message, created_at,"
            " changed_at) VALUES (?, ?, ?, ?, ?, '', 0, 0)",
            rows,
        )


async def test_every_filter_lists_exactly_its_jobs_page_by_page(
    store: JobStore, tmp_path: Path
) -> None:
    fill(tmp_path / "db.sqlite", 300)
    everything = await store.lists.page(JobFilter(), NEWEST, 1000)
    assert [job.id for job in everything] == list(range(300, 0, -1))
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
        before = NEWEST
        while page := await store.lists.page(wanted, before, 7):
            found += [job.id for job in page]
            before = found[-1]
        assert found == expected, wanted


async def test_trap_27_no_filter_reads_more_than_its_index(store: JobStore, tmp_path: Path) -> None:
    small = ("of_user", "of_service", "statuses", "CONSTANT")
    with contextlib.closing(sqlite3.connect(tmp_path / "db.sqlite")) as database:
        for wanted in [JobFilter(), *filters()]:
            values = {**wanted.values, "before": NEWEST, "limit": 50}
            rows = database.execute(f"EXPLAIN QUERY PLAN {listing.listing(wanted)}", values)
            plan = [row[3] for row in rows]
            scans = [step for step in plan if step.startswith("SCAN")]
            assert all(any(name in step for name in small) for step in scans), plan
            assert all("USING" in step for step in plan if step.startswith("SEARCH jobs")), plan


async def test_cost_of_a_page_does_not_grow_with_the_number_of_jobs(
    store: JobStore, tmp_path: Path
) -> None:
    """Counted in SQLite's own steps, which are the same on every machine."""
    path = tmp_path / "db.sqlite"
    fill(path, 6_000)
    before = {wanted: _steps(path, wanted) for wanted in filters()}
    fill(path, 24_000)
    for wanted, steps in before.items():
        assert _steps(path, wanted) <= 1.2 * steps + 500, wanted


def _steps(path: Path, wanted: JobFilter) -> int:
    count = 0

    def step() -> None:
        nonlocal count
        count += 1

    values = {**wanted.values, "before": NEWEST, "limit": 10}
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.set_progress_handler(step, 1)
        database.execute(listing.listing(wanted), values).fetchall()
    return count
