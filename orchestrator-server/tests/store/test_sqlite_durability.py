"""Flushed commits: those that anybody is notified of, and no others."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from job_orchestrator.common.status import JobStatus
from job_orchestrator.server.model import Job, StoredOutput
from job_orchestrator.server.store.base import JobStore
from job_orchestrator.server.store.installation import Installation
from job_orchestrator.server.store.sqlite.connection import connect
from job_orchestrator.server.store.sqlite.schema import migrate
from job_orchestrator.server.store.sqlite.store import SqliteJobStore
from job_orchestrator.server.store.sqlite.writer import Writer
from stores import CLIENT, claim, stored_output

S = JobStatus


@dataclass
class Traced:
    """A store, and the statements that its writing connection has executed."""

    store: JobStore
    statements: list[str]

    def commits(self) -> list[str]:
        """Return for each commit so far the value of ``PRAGMA synchronous`` that it had."""
        mode, commits = "", []
        for statement in self.statements:
            if statement.startswith("PRAGMA synchronous = "):
                mode = statement.rpartition(" ")[2]
            elif statement == "COMMIT":
                commits.append(mode)
        return commits


@pytest.fixture
async def traced(sqlite_path: Path) -> AsyncIterator[Traced]:
    writing, reading = await connect(sqlite_path), await connect(sqlite_path)
    await migrate(writing)
    statements: list[str] = []
    await writing.set_trace_callback(statements.append)
    yield Traced(SqliteJobStore(Writer(writing), reading, Installation("i"), time.time), statements)
    await writing.close()
    await reading.close()


async def running(store: JobStore) -> Job:
    """Create a job that runs at a client."""
    await store.create("u", 1, "x")
    (job,) = await claim(store)
    await store.transition(job, S.SUBMITTED, "", dest_id=1)
    return await store.transition(job, S.RUNNING, "")


Change = Callable[[JobStore, Job], Awaitable[object]]


def ends_as(status: JobStatus) -> Change:
    return lambda store, job: store.transition(job, status, "")


def requeued(store: JobStore, job: Job) -> Awaitable[object]:
    return store.requeue(job, "lost", delay_s=0, max_attempts=3, counts=True, may_still_run=True)


async def ends_and_output_follows(store: JobStore, job: Job) -> None:
    await store.keep_output(await store.transition(job, S.KILLED, ""), stored_output(7))


NOTIFIED: dict[str, Change] = {
    "Completed": ends_as(S.COMPLETED),
    "Failed": ends_as(S.FAILED),
    "Invalid": ends_as(S.INVALID),
    "Killed": ends_as(S.KILLED),
    "requeue": requeued,
    "request to terminate": lambda store, job: store.request_kill(job.id),
    "output of an ended job": ends_and_output_follows,
}


@pytest.mark.parametrize("change", NOTIFIED.values(), ids=NOTIFIED)
async def test_trap_45_change_that_is_answered_or_acknowledged_is_flushed(
    traced: Traced, change: Change
) -> None:
    job = await running(traced.store)
    before = len(traced.commits())
    await change(traced.store, job)
    assert set(traced.commits()[before:]) == {"FULL"}


async def test_trap_45_creation_and_claim_are_flushed(traced: Traced) -> None:
    await traced.store.create("u", 1, "x")
    await claim(traced.store)
    assert traced.commits() == ["FULL", "FULL"]


async def test_status_that_is_derived_from_the_client_is_not_flushed(traced: Traced) -> None:
    job = await running(traced.store)
    await traced.store.client_lost(CLIENT, "silent")
    await traced.store.transition(job, S.RUNNING, "")
    assert traced.commits() == ["FULL", "FULL", "NORMAL", "NORMAL", "NORMAL", "NORMAL"]


async def test_job_with_small_files_takes_two_flushed_commits_from_upload_to_result(
    traced: Traced,
) -> None:
    store = traced.store
    created, (job,) = await asyncio.gather(store.create("u", 1, "x", inputs=b"run"), claim(store))
    assert created.id == job.id
    assert traced.commits() == ["FULL"], "creation and claim"
    await asyncio.gather(
        store.transition(job, S.SUBMITTED, "", dest_id=1, deferred=True),
        store.transition(job, S.RUNNING, "", deferred=True),
        store.transition(
            job, S.COMPLETED, "", output=StoredOutput(3, b"digest", b"zip"), acknowledge=1
        ),
    )
    assert traced.commits() == ["FULL", "FULL"]
    assert await store.result(job) == b"zip"
