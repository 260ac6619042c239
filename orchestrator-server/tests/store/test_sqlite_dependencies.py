"""Ends on which many jobs depend: short transactions, and a crash between two loses nothing."""

import asyncio
import contextlib
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from job_orchestrator.common.status import JobStatus
from job_orchestrator.server.model import Job
from job_orchestrator.server.store.sqlite.maintenance import counters, kept_jobs
from job_orchestrator.server.store.sqlite.queue.dependencies import MAX_AT_ONCE
from job_orchestrator.server.store.sqlite.store import open_store

DEPENDENT = 3 * MAX_AT_ONCE + 7

FAN, CHAIN = "1", "id - 1"

END_AND_CRASH = """
import asyncio, os, pathlib, signal, sys
from job_orchestrator.common.status import JobStatus
from job_orchestrator.server.store.sqlite.store import open_store

commits = int(sys.argv[2])
armed = False

def wrote(seconds):
    global commits
    commits -= armed
    if armed and commits == 0:
        os.kill(os.getpid(), signal.SIGKILL)

async def main():
    global armed
    async with open_store(pathlib.Path(sys.argv[1]), wrote=wrote) as store:
        armed = True
        await store.transition(await store.get(1), JobStatus[sys.argv[3]], "")
        await asyncio.sleep(60)

asyncio.run(main())
"""
"""Ends job 1 and is killed after a number of commits. Arguments: database, commits, status."""


def add_dependent(path: Path, before: str) -> None:
    """Add job 1, and jobs that need it, or each the one before it."""

    async def add_first() -> None:
        async with open_store(path) as store:
            await store.create("first", 1, "x")

    asyncio.run(add_first())
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute(
            """INSERT INTO jobs (uuid, user_id, service, status, message, created_at, changed_at,
                   open_dependencies)
               WITH RECURSIVE numbers (n) AS (
                   SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?)
               SELECT 'd' || n, 1, 'x', 'Queued', '', 0, 0, 1 FROM numbers""",
            (DEPENDENT,),
        )
        database.execute(
            f"INSERT INTO dependencies (on_id, job_id, needs_success)"  # noqa: S608
            f" SELECT {before}, id, 1 FROM jobs WHERE id > 1"
        )


def statuses(path: Path) -> set[str]:
    """Return the statuses of the dependent jobs."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        rows = database.execute("SELECT DISTINCT status FROM jobs WHERE id > 1")
        return {str(status) for (status,) in rows}


@pytest.mark.parametrize("before", [FAN, CHAIN], ids=["fan", "chain"])
def test_end_of_a_job_that_many_need_is_several_transactions(
    sqlite_path: Path, before: str
) -> None:
    add_dependent(sqlite_path, before)

    async def end() -> None:
        commits: list[float] = []
        seen: list[int] = []
        everybody = asyncio.Event()

        def notice(job: Job) -> None:
            seen.append(job.id)
            if len(seen) > DEPENDENT:
                everybody.set()

        async with open_store(sqlite_path, wrote=commits.append) as store:
            started = len(commits)
            store.subscribe(notice)
            await store.transition(await store.get(1), JobStatus.KILLED, "")
            async with asyncio.timeout(60):
                await everybody.wait()
            assert len(commits) - started > DEPENDENT // MAX_AT_ONCE
            assert sorted(seen) == list(range(1, DEPENDENT + 2)), "each end is announced once"

    asyncio.run(end())
    assert statuses(sqlite_path) == {"Failed"}


@pytest.mark.parametrize("before", [FAN, CHAIN], ids=["fan", "chain"])
def test_stop_between_two_transactions_leaves_no_task(
    sqlite_path: Path, before: str, caplog: pytest.LogCaptureFixture
) -> None:
    add_dependent(sqlite_path, before)

    async def end_and_stop() -> None:
        async with open_store(sqlite_path) as store:
            await store.transition(await store.get(1), JobStatus.KILLED, "")
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(end_and_stop())
    assert caplog.messages == []


@pytest.mark.parametrize("before", [FAN, CHAIN], ids=["fan", "chain"])
@pytest.mark.parametrize("commits", [1, 2, 3])
def test_kill_between_two_transactions_leaves_nothing_behind(
    sqlite_path: Path, before: str, commits: int
) -> None:
    add_dependent(sqlite_path, before)
    arguments = [str(sqlite_path), str(commits), "KILLED"]
    crashed = subprocess.run([sys.executable, "-c", END_AND_CRASH, *arguments], check=False)
    assert crashed.returncode == -signal.SIGKILL
    assert statuses(sqlite_path) == {"Failed", "Queued"}

    async def start() -> None:
        async with open_store(sqlite_path) as store:
            assert (await store.get(DEPENDENT + 1)).status is JobStatus.FAILED

    asyncio.run(start())
    assert statuses(sqlite_path) == {"Failed"}
    with kept_jobs.opened(sqlite_path) as connection:
        assert kept_jobs.damage(connection) == []
        assert (kept_jobs.wrong_histories(connection), counters.wrong_usage(connection)) == (
            [],
            [],
        )
        assert connection.execute("SELECT count(*) FROM dependencies").fetchall() == [(0,)]
