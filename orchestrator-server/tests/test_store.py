"""The store: compare-and-set, atomic claims, history, and costs that don't grow."""

import asyncio
import contextlib
import itertools
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from job_orchestrator.common.errors import StartupError, StorageFull
from job_orchestrator.common.status import FINAL_JOB, JobStatus, TransitionRefused, may_become
from job_orchestrator.server.errors import JobNotFound
from job_orchestrator.server.store.base import Offer, WaitingUser
from job_orchestrator.server.store.sqlite import claims, creation, events, jobs, listing
from job_orchestrator.server.store.sqlite.jobs import JobStore
from job_orchestrator.server.store.sqlite.opening import open_store

S = JobStatus


def everything(active: int, waiting: object) -> list[int]:
    """Claim one job of each waiting user."""
    assert isinstance(waiting, list)
    return [user.user_id for user in waiting for _ in range(user.queued)]


async def claim(store: JobStore, number: int = 1) -> list[int]:
    claims = await store.claim({"x": Offer(1000, ["http://c/submit"] * number, everything)})
    return [job.id for claim in claims.values() for job in claim.jobs]


async def test_created_job_is_queued_with_its_history(store: JobStore, tmp_path: Path) -> None:
    job = await store.create("u", -5, "x")
    assert (job.id, job.status, job.user_id, job.attempt) == (1, S.QUEUED, -5, 0)
    assert _events(tmp_path) == [(1, None, "Queued")]


async def test_unknown_job_is_told(store: JobStore) -> None:
    with pytest.raises(JobNotFound, match="Job 7 not found"):
        await store.get(7)


@given(path=st.lists(st.sampled_from(S), max_size=8))
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_store_allows_exactly_the_transitions_of_the_table(
    path: list[JobStatus], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("store")

    async def walk() -> None:
        async with open_store(folder / "db.sqlite") as store:
            job = await store.create("u", 1, "x")
            history = [S.QUEUED]
            for wanted in path:
                if not may_become(history[-1], wanted):
                    with pytest.raises(TransitionRefused) as refused:
                        await store.transition(job, wanted, "why")
                    assert refused.value.current is history[-1]
                    continue
                changed = await store.transition(job, wanted, "why")
                history.append(wanted)
                assert (changed.ended_at is not None) == bool(FINAL_JOB.intersection(history))
            assert [row[2] for row in _events(folder)] == history

    asyncio.run(walk())


async def test_late_answer_about_an_earlier_attempt_is_refused(store: JobStore) -> None:
    await store.create("u", 1, "x")
    await claim(store)
    first = await store.get(1)
    await store.requeue(first, "lost", delay_s=0, max_attempts=3, counts=True, may_still_run=False)
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
        assert await claim(store) == [1]
        job = await store.get(1)
        job = await store.requeue(
            job, "no answer", delay_s=0, max_attempts=3, counts=counts, may_still_run=False
        )
    assert (job.status, job.message) == (status, "no answer")
    assert (job.ended_at is not None) == (status is S.FAILED)


async def test_requeued_job_waits_for_its_delay(store: JobStore) -> None:
    await store.create("u", 1, "x")
    await claim(store)
    job = await store.requeue(
        await store.get(1), "busy", delay_s=3600, max_attempts=3, counts=False, may_still_run=False
    )
    assert job.status is S.QUEUED
    assert await claim(store) == []


async def test_requeue_of_a_job_that_is_to_be_killed_kills_it(store: JobStore) -> None:
    await store.create("u", 1, "x")
    await claim(store)
    await store.request_kill(1)
    job = await store.requeue(
        await store.get(1), "lost", delay_s=0, max_attempts=3, counts=True, may_still_run=False
    )
    assert (job.status, job.message) == (S.KILLED, "Terminated on request")


async def test_kill_request_leaves_an_ended_job_as_it_is(store: JobStore) -> None:
    job = await store.create("u", 1, "x")
    await store.transition(job, S.KILLED, "")
    await store.request_kill(1)
    assert (await store.get(1)).kill_requested is False


async def test_job_is_claimed_once_however_many_claim_at_once(store: JobStore) -> None:
    for number in range(30):
        await store.create(f"u{number}", number % 3, "x")
    claimed = await asyncio.gather(*(claim(store, 4) for _ in range(10)))
    ids = [job for each in claimed for job in each]
    assert sorted(ids) == list(range(1, 31))


async def test_claims_are_fifo_within_a_user_and_fair_between_users(store: JobStore) -> None:
    for number in range(6):
        await store.create(f"u{number}", 1 if number < 4 else 2, "x")
    seen: list[WaitingUser] = []

    def decide(active: int, waiting: object) -> list[int]:
        assert isinstance(waiting, list)
        seen[:] = waiting
        return [1, 2]

    for active, served in ((0, [0, 0]), (2, [1, 2])):
        taken = await store.claim({"x": Offer(10, ["c"] * 2, decide)})
        assert taken["x"].active == active
        assert [user.served for user in seen] == served
    assert [user.head for user in seen] == [2, 6]


async def test_trap_28_fifty_writers_see_no_locked_database(
    store: JobStore, tmp_path: Path
) -> None:
    async with open_store(tmp_path / "db.sqlite") as other:
        await asyncio.gather(
            *(
                each.create(f"{i}-{n}", i, "x")
                for n, each in enumerate((store, other))
                for i in range(25)
            ),
        )
        claimed = await asyncio.gather(*(claim(s, 5) for s in (store, other) for _ in range(6)))
    assert Counter(job for each in claimed for job in each).most_common(1)[0][1] == 1


async def test_trap_18_failing_statement_leaves_no_half_made_job(
    store: JobStore, tmp_path: Path
) -> None:
    with _database(tmp_path) as database:
        database.execute(
            "CREATE TRIGGER fails BEFORE INSERT ON job_events BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
    with pytest.raises(sqlite3.IntegrityError):
        await store.create("u", 1, "x")
    with _database(tmp_path) as database:
        database.execute("DROP TRIGGER fails")
        assert database.execute("SELECT count(*) FROM jobs").fetchone() == (0,)
    assert (await store.create("u", 1, "x")).status is S.QUEUED


async def test_claim_that_fails_half_way_claims_nothing(store: JobStore, tmp_path: Path) -> None:
    await store.create("u1", 1, "x")
    await store.create("u2", 2, "x")
    with _database(tmp_path) as database:
        database.execute(
            "CREATE TRIGGER fails BEFORE INSERT ON served WHEN new.user_id = 2"
            " BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
    with pytest.raises(sqlite3.IntegrityError):
        await claim(store, 2)
    assert [(await store.get(i)).status for i in (1, 2)] == [S.QUEUED, S.QUEUED]
    with _database(tmp_path) as database:
        database.execute("DROP TRIGGER fails")
    assert await claim(store, 2) == [1, 2]


async def test_full_database_is_told_as_full_storage(store: JobStore) -> None:
    await store._writer._connection.execute("PRAGMA max_page_count = 1")

    async def fill() -> None:
        for number in range(1000):
            await store.create(f"{number}" * 50, 1, "x")

    with pytest.raises(StorageFull):
        await fill()


async def test_newer_database_is_refused(tmp_path: Path) -> None:
    with _database(tmp_path) as database:
        database.execute("PRAGMA user_version = 7")
    with pytest.raises(StartupError, match="schema version 7"):
        async with open_store(tmp_path / "db.sqlite"):
            pass


async def test_reopened_database_keeps_its_jobs(tmp_path: Path) -> None:
    async with open_store(tmp_path / "db.sqlite") as store:
        await store.create("u", 1, "x")
    async with open_store(tmp_path / "db.sqlite") as store:
        assert (await store.get(1)).uuid == "u"
        assert (await store.create("v", 1, "x")).id == 2


@pytest.mark.parametrize(
    "statement",
    [
        claims.QUEUED_SERVICES,
        claims.ANY_QUEUED,
        claims.ACTIVE_COUNT,
        claims.WAITING_USERS,
        claims.CLAIM_ONE,
        claims.MARK_SERVED,
        creation.REPEATED,
        jobs.GET,
        jobs.PROCESSING,
        jobs.ACTIVE_AT,
        jobs.UNKNOWN_SINCE,
        jobs.ENDED_BEFORE,
        jobs.AHEAD,
        listing.HISTORY,
        listing.LATEST,
        events.LAST_ID,
        events.OF_JOB,
        events.BETWEEN,
        events.PRESENT,
    ],
)
async def test_trap_27_no_frequent_statement_reads_more_than_its_index(
    store: JobStore, tmp_path: Path, statement: str
) -> None:
    names = ("service", "user_id", "now", "free", "client_url", "id", "priority", "limit")
    names += ("idempotency_key", "after", "until", "job_id")
    values: object = dict.fromkeys(names, 1)
    if "?" in statement:
        values = (1,) * statement.count("?")
    with _database(tmp_path) as database:
        plan = [row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {statement}", values)]
    assert not [step for step in plan if "TEMP B-TREE" in step], plan
    small = ("jobs_active", "jobs_dispatched", "jobs_unknown")
    for step in plan:
        if step.startswith("SCAN jobs") and statement != listing.LATEST:
            # Active jobs are few, by the quotas: reading all of them is the smallest way.
            assert any(f"INDEX {index}" in step for index in small), plan


@pytest.mark.parametrize(
    "statement", [claims.QUEUED_SERVICES, claims.ACTIVE_COUNT, claims.WAITING_USERS]
)
async def test_trap_27_claim_costs_the_same_whatever_has_ended(
    store: JobStore, tmp_path: Path, statement: str
) -> None:
    for number in range(3):
        await store.create(f"{number}", number, "x")
    values = {"service": "x", "now": 1e10, "free": 1}
    add_ended = """
        INSERT INTO jobs (uuid, user_id, service, status, message, created_at, changed_at, ended_at)
        SELECT hex(randomblob(16)), user_id, service, 'Failed', '', 0, 0, 0 FROM jobs"""
    with _database(tmp_path) as database:
        few = _steps(database, statement, values)
        for _ in range(10):  # each doubles them
            database.execute(add_ended)
        assert _steps(database, statement, values) == few


async def test_claim_while_nothing_waits_asks_the_database_nothing(store: JobStore) -> None:
    statements: list[str] = []
    await store.create("u", 1, "x")
    await store.create("v", 1, "x")
    await store.create("w", 1, "not offered")
    assert await claim(store) == [1]
    assert await claim(store) == [2]
    await store._writer._connection.set_trace_callback(statements.append)
    assert await claim(store) == []
    assert statements  # the third one waits
    await store.transition(await store.get(3), S.KILLED, "")
    assert await claim(store) == []
    statements.clear()
    assert await claim(store) == []
    assert statements == []
    job = await store.get(1)
    await store.requeue(job, "", delay_s=0, max_attempts=9, counts=False, may_still_run=False)
    assert await claim(store) == [1]


def _steps(database: sqlite3.Connection, statement: str, values: dict[str, object]) -> int:
    """What a statement costs, in instructions of SQLite's virtual machine."""
    database.execute(statement, values).fetchall()  # from now on the schema is known
    steps = itertools.count()
    database.set_progress_handler(lambda: next(steps) and None, 1)
    database.execute(statement, values).fetchall()
    database.set_progress_handler(None, 1)
    return next(steps)


def _events(folder: Path) -> list[tuple[int, str | None, str]]:
    with _database(folder) as database:
        statement = "SELECT job_id, from_status, to_status FROM job_events ORDER BY rowid"
        return database.execute(statement).fetchall()


@contextlib.contextmanager
def _database(folder: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(folder / "db.sqlite")) as database, database:
        yield database


async def test_trap_27_a_pass_over_a_large_table_reads_what_is_due_and_no_more(
    store: JobStore, tmp_path: Path
) -> None:
    """Counted, not timed: SQLite tells how many rows its steps have gone over."""
    with _database(tmp_path) as database:
        database.execute("DROP TRIGGER job_created")  # history is not what is asked here
        for status, count, start in (("Completed", 200_000, 0), ("Queued", 20_000, 200_000)):
            database.execute(
                """INSERT INTO jobs (uuid, user_id, service, status, message, created_at,
                       changed_at, ended_at)
                   WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
                   SELECT i + ?, i % 5, 'x', ?, '', 1.0, 1.0, iif(? = 'Queued', NULL, 1e11) FROM n
                """,
                (count, start, status, status),
            )
        database.commit()
        steps = 0

        def count_steps() -> int:
            nonlocal steps
            steps += 100
            return 0

        database.set_progress_handler(count_steps, 100)
        values = {"service": "x", "user_id": 1, "now": 2.0, "free": 10, "client_url": "u"}
        for statement in (
            claims.QUEUED_SERVICES,
            claims.ACTIVE_COUNT,
            claims.WAITING_USERS,
            claims.CLAIM_ONE,
        ):
            database.execute(statement, values).fetchall()
        for statement, given in (
            (jobs.PROCESSING, ()),
            (jobs.UNKNOWN_SINCE, (2.0,)),
            (jobs.ENDED_BEFORE, (2.0, 200)),
        ):
            database.execute(statement, given).fetchall()
        database.set_progress_handler(None, 0)
    assert steps < 10_000, "a scan would take a hundred times as many"
