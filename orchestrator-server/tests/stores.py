"""Implementations of ``JobStore``, and helpers for tests that need a store.

A further implementation is one more entry in ``IMPLEMENTATIONS``: the tests in ``store/`` then run
against it as well.
"""

import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from job_orchestrator.server.model import Job, StoredOutput
from job_orchestrator.server.store.base import JobStore
from job_orchestrator.server.store.queue import Decide, Offer, WaitingUser
from job_orchestrator.server.store.sqlite.maintenance import counters, kept_jobs
from job_orchestrator.server.store.sqlite.store import open_store

CLIENT = "http://c/submit"

OpenStore = Callable[..., AbstractAsyncContextManager[JobStore]]
"""Function that opens the store of a test, with a clock if one is given. Each call opens the same
database."""

Database = Callable[[], AbstractContextManager[sqlite3.Connection]]
"""Function that opens the file of a SQLite store in a second connection."""


def stored_output(size: int) -> StoredOutput:
    """Return output of this size, with some digest."""
    return StoredOutput(size, bytes(32))


@dataclass(frozen=True)
class Implementation:
    """An implementation of ``JobStore``.

    ``open`` takes the folder that identifies the database, and a clock. ``problems`` lists what is
    inconsistent in that database.
    """

    open: Callable[[Path, Callable[[], float]], AbstractAsyncContextManager[JobStore]]
    problems: Callable[[Path], Sequence[str]]


def _sqlite_problems(folder: Path) -> Sequence[str]:
    with kept_jobs.opened(folder / "db.sqlite") as connection:
        return [
            *kept_jobs.damage(connection),
            *(f"usage of user {user}" for user in counters.wrong_usage(connection)),
            *(f"waits of job {job}" for job in counters.wrong_dependencies(connection)),
            *(f"tasks of array {each}" for each in counters.wrong_arrays(connection)),
            *(f"history: {each}" for each in kept_jobs.wrong_histories(connection)),
            *(f"slots of {each}" for each in connection.execute(_WRONG_SLOTS)),
        ]


_WRONG_SLOTS = """
SELECT service, user_id, sum(slots) FROM (
    SELECT service, user_id, slots FROM served UNION ALL
    SELECT service, user_id, -count(*) FROM jobs
    WHERE status IN ('Processing', 'Submitted', 'Running', 'Unknown') GROUP BY service, user_id)
GROUP BY service, user_id HAVING sum(slots) <> 0
"""


IMPLEMENTATIONS: Mapping[str, Implementation] = {
    "sqlite": Implementation(
        lambda folder, now: open_store(folder / "db.sqlite", now), _sqlite_problems
    ),
}


def all_of_them(
    active: int, slots: int, waiting: Sequence[WaitingUser], _: object = None
) -> Sequence[int]:
    """Choose every job that may be claimed."""
    return [user.user_id for user in waiting for _ in range(user.queued)]


async def claim(
    store: JobStore, slots: int = 1, *, service: str = "x", decide: Decide = all_of_them
) -> Sequence[Job]:
    """Claim queued jobs of one service for a client with free slots."""
    claims = await store.claim({service: Offer(1000, [CLIENT] * slots, decide)})
    return [job for each in claims.values() for job in each.jobs]


async def requeue(store: JobStore, job: Job, *, counts: bool = False) -> Job:
    """Return a job to the queue immediately, as if its client had lost it."""
    return await store.requeue(
        job, "lost", delay_s=0, max_attempts=3, counts=counts, may_still_run=False
    )


class Clock:
    """Clock that a test moves forward."""

    def __init__(self, at: float | None = None) -> None:
        self.at = time.time() if at is None else at

    def __call__(self) -> float:
        return self.at
