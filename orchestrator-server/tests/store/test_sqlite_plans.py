"""Query plans: no frequent statement costs more because the tables have grown.

Costs are counted in instructions of SQLite's virtual machine, which are the same on every machine.
"""

import itertools
import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from job_orchestrator.common.status import JobStatus
from job_orchestrator.server.model import MAX_JOB_ID, JobFilter, JobOptions
from job_orchestrator.server.store.base import JobStore
from job_orchestrator.server.store.installation import Installation
from job_orchestrator.server.store.queue import MAX_WAITING, MAX_WAITING_JOBS
from job_orchestrator.server.store.sqlite import claims, creation, events, listing
from job_orchestrator.server.store.sqlite import store as store_module
from job_orchestrator.server.store.sqlite.clients import unconfirmed
from job_orchestrator.server.store.sqlite.connection import connect
from job_orchestrator.server.store.sqlite.queue import dependencies, rates, usage, waiting
from job_orchestrator.server.store.sqlite.schema import migrate
from job_orchestrator.server.store.sqlite.store import SqliteJobStore
from job_orchestrator.server.store.sqlite.writer import Writer
from stores import Database, claim, requeue


def plan_of(connection: sqlite3.Connection, statement: str, values: object) -> list[str]:
    rows = connection.execute(f"EXPLAIN QUERY PLAN {statement}", values)  # type: ignore[arg-type]
    return [row[3] for row in rows]


def steps_of(connection: sqlite3.Connection, statement: str, values: object) -> int:
    """Count the instructions that a statement takes."""
    connection.execute(statement, values).fetchall()  # type: ignore[arg-type] # reads the schema
    steps = itertools.count()
    connection.set_progress_handler(lambda: next(steps) and None, 1)
    connection.execute(statement, values).fetchall()  # type: ignore[arg-type]
    connection.set_progress_handler(None, 1)
    return next(steps)


@pytest.mark.parametrize(
    "statement",
    [
        claims.QUEUED_SERVICES,
        claims.ANY_QUEUED,
        claims.ACTIVE_COUNT,
        claims.WAITING_USERS,
        claims.CLAIM_ONE,
        claims.NEXT_JOBS,
        claims.ACTIVE_USERS,
        dependencies.PREDECESSOR,
        dependencies.ADD,
        dependencies.COUNT,
        dependencies.FAIL_NEW,
        dependencies.FAIL,
        dependencies.RELEASE,
        dependencies.FORGET,
        dependencies.WAITING,
        dependencies.ENDED,
        rates.TOKENS,
        rates.SET_TOKENS,
        usage.MARK_SERVED,
        usage.OF_USER,
        usage.SETTLE,
        creation.REPEATED,
        creation.USAGE,
        store_module.GET,
        store_module.PROCESSING,
        store_module.ACTIVE_AT,
        store_module.UNKNOWN_SINCE,
        store_module.ENDED_BEFORE,
        waiting.AHEAD,
        listing.HISTORY,
        listing.LATEST,
        events.LAST_ID,
        events.OF_JOB,
        events.BETWEEN,
        events.PRESENT,
        unconfirmed.DUE,
    ],
)
@pytest.mark.usefixtures("sqlite_store")
async def test_trap_27_no_frequent_statement_reads_more_than_its_index(
    sqlite_database: Database, statement: str
) -> None:
    names = (
        "service user_id now free client_url nonce id priority limit idempotency_key after until"
        " job_id usage_s slots usage_at tokens why last"
    )
    values: object = dict.fromkeys(names.split(), 1)
    if "?" in statement:
        values = (1,) * statement.count("?")
    with sqlite_database() as connection:
        plan = plan_of(connection, statement, values)
    assert not [step for step in plan if "TEMP B-TREE" in step], plan
    small = ("jobs_active", "jobs_dispatched", "jobs_unknown")
    for step in plan:
        if step.startswith("SCAN jobs") and statement != listing.LATEST:
            # Quotas keep the active jobs few. Reading all of them is the smallest plan.
            assert any(f"INDEX {index}" in step for index in small), plan


@pytest.mark.usefixtures("sqlite_store")
async def test_waiting_jobs_are_read_without_those_that_have_ended(
    sqlite_database: Database,
) -> None:
    with sqlite_database() as connection:
        plan = plan_of(connection, listing.WAITING, ())
    scans = [step for step in plan if step.startswith("SCAN jobs")]
    assert scans == ["SCAN jobs USING INDEX jobs_active"]


@pytest.mark.parametrize("statement", [listing.WAITING, listing.UNENDED])
async def test_statistics_cost_the_same_whatever_is_queued(
    sqlite_store: JobStore, sqlite_database: Database, statement: str
) -> None:
    await sqlite_store.create("a", 1, "x")
    with sqlite_database() as connection:
        few = steps_of(connection, statement, ())
        for _ in range(10):  # each doubles them
            connection.execute(
                """INSERT INTO jobs (uuid, user_id, service, status, message, created_at,
                       changed_at)
                   SELECT hex(randomblob(16)), user_id, service, status, '', 0, 0 FROM jobs"""
            )
        assert steps_of(connection, statement, ()) == few


@pytest.mark.usefixtures("sqlite_store")
async def test_counters_of_a_user_are_one_look_up(sqlite_database: Database) -> None:
    with sqlite_database() as connection:
        (step,) = plan_of(connection, creation.USAGE, (1,))
    assert "USING INTEGER PRIMARY KEY" in step


@pytest.mark.usefixtures("sqlite_store")
async def test_due_callbacks_are_found_by_their_time(sqlite_database: Database) -> None:
    with sqlite_database() as connection:
        assert plan_of(connection, unconfirmed.DUE, (0, 1)) == [
            "SEARCH callbacks USING INDEX callbacks_due (due_at<?)",
            "SEARCH jobs USING INTEGER PRIMARY KEY (rowid=?)",
        ]


@pytest.mark.parametrize(
    "statement", [claims.QUEUED_SERVICES, claims.ACTIVE_COUNT, claims.WAITING_USERS]
)
async def test_trap_27_claim_costs_the_same_whatever_has_ended(
    sqlite_store: JobStore, sqlite_database: Database, statement: str
) -> None:
    for number in range(3):
        await sqlite_store.create(f"{number}", number, "x")
    values = {"service": "x", "now": 1e10, "free": 1}
    add_ended = """
        INSERT INTO jobs (uuid, user_id, service, status, message, created_at, changed_at, ended_at)
        SELECT hex(randomblob(16)), user_id, service, 'Failed', '', 0, 0, 0 FROM jobs"""
    with sqlite_database() as connection:
        few = steps_of(connection, statement, values)
        for _ in range(10):  # each doubles them
            connection.execute(add_ended)
        assert steps_of(connection, statement, values) == few


@pytest.mark.usefixtures("sqlite_store")
async def test_trap_27_a_pass_over_a_large_table_reads_what_is_due_and_no_more(
    sqlite_database: Database,
) -> None:
    with sqlite_database() as connection:
        connection.execute("DROP TRIGGER job_created")  # the history is not read here
        for status, count, start in (("Completed", 200_000, 0), ("Queued", 20_000, 200_000)):
            connection.execute(
                """INSERT INTO jobs (uuid, user_id, service, status, message, created_at,
                       changed_at, ended_at)
                   WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
                   SELECT i + ?, i % 5, 'x', ?, '', 1.0, 1.0, iif(? = 'Queued', NULL, 1e11) FROM n
                """,
                (count, start, status, status),
            )
        connection.commit()
        steps = 0

        def count_steps() -> int:
            nonlocal steps
            steps += 100
            return 0

        connection.set_progress_handler(count_steps, 100)
        values = {
            "service": "x",
            "user_id": 1,
            "now": 2.0,
            "free": 10,
            "nonce": "n",
            "client_url": "u",
        }
        for statement in (
            claims.QUEUED_SERVICES,
            claims.ACTIVE_COUNT,
            claims.WAITING_USERS,
            claims.CLAIM_ONE,
        ):
            connection.execute(statement, values).fetchall()
        for statement, given in (
            (store_module.PROCESSING, ()),
            (store_module.UNKNOWN_SINCE, (2.0, 2.0, "{}", 0.0)),
            (store_module.ENDED_BEFORE, (2.0, 200)),
        ):
            connection.execute(statement, given).fetchall()
        connection.set_progress_handler(None, 0)
    assert steps < 10_000, "a scan would take a hundred times as many"


@pytest.mark.parametrize(
    "statement",
    [
        claims.QUEUED_SERVICES,
        claims.WAITING_USERS,
        claims.CLAIM_ONE,
        claims.ANY_QUEUED,
    ],
)
async def test_chain_of_dependent_jobs_costs_a_pass_nothing(
    sqlite_store: JobStore, sqlite_database: Database, statement: str
) -> None:
    first = await sqlite_store.create("first", 1, "x")
    values = {"service": "x", "user_id": 2, "now": 1.0, "free": 9, "nonce": "n", "client_url": "u"}
    with sqlite_database() as connection:
        none = steps_of(connection, statement, values)
    await sqlite_store.create("second", 1, "x", JobOptions(after_success=(first.id,)))
    with sqlite_database() as connection:
        connection.execute(
            """INSERT INTO jobs (uuid, user_id, service, status, message, created_at, changed_at,
                   open_dependencies)
               WITH RECURSIVE n (i) AS (SELECT 3 UNION ALL SELECT i + 1 FROM n WHERE i < 10000)
               SELECT i, 1 + i % 2, 'x', 'Queued', '', 0, 0, 1 FROM n"""
        )
        connection.execute(
            "INSERT INTO dependencies (on_id, job_id, needs_success)"
            " SELECT id - 1, id, 1 FROM jobs WHERE id > 2"
        )
        assert steps_of(connection, statement, values) == none


async def test_end_of_a_job_costs_the_same_whatever_waits_for_others(
    sqlite_store: JobStore, sqlite_database: Database
) -> None:
    for number in range(2):
        await sqlite_store.create(f"{number}", 1, "x")
    values = {"id": 2, "limit": 100}
    with sqlite_database() as connection:
        none = steps_of(connection, dependencies.WAITING, values)
        connection.execute(
            """INSERT INTO jobs (uuid, user_id, service, status, message, created_at, changed_at,
                   open_dependencies)
               WITH RECURSIVE n (i) AS (SELECT 3 UNION ALL SELECT i + 1 FROM n WHERE i < 10000)
               SELECT i, 1, 'x', 'Queued', '', 0, 0, 1 FROM n"""
        )
        connection.execute(
            "INSERT INTO dependencies (on_id, job_id, needs_success)"
            " SELECT 1, id, 1 FROM jobs WHERE id > 2"
        )
        assert steps_of(connection, dependencies.WAITING, values) == none


@pytest.mark.usefixtures("sqlite_store")
async def test_estimate_reads_a_bounded_part_of_a_long_queue(
    sqlite_database: Database,
) -> None:
    users, jobs = 1_000, 100_000
    values = {"service": "x", "free": MAX_WAITING_JOBS}
    with sqlite_database() as connection:
        connection.executemany(
            """INSERT INTO jobs (uuid, user_id, service, status, message, created_at, changed_at)
            VALUES (?, ?, 'x', 'Queued', '', 1.0, 1.0)""",
            ((str(number), number % users) for number in range(jobs)),
        )
        connection.commit()
        found = connection.execute(claims.ALL_WAITING_USERS, values).fetchall()
        steps = steps_of(connection, claims.ALL_WAITING_USERS, values)
    assert len(found) == MAX_WAITING
    assert {queued for _, queued, *_ in found} == {MAX_WAITING_JOBS}
    # Ten instructions for each job that is counted, and some for each user.
    assert steps < MAX_WAITING * (10 * MAX_WAITING_JOBS + 150)


async def test_claim_while_no_job_is_queued_runs_no_statement(sqlite_path: Path) -> None:
    statements: list[str] = []
    writing, reading = await connect(sqlite_path), await connect(sqlite_path)
    try:
        await migrate(writing)
        store = SqliteJobStore(Writer(writing), reading, Installation("i"), lambda: 0.0)
        await store.create("u", 1, "x")
        await store.create("v", 1, "x")
        await store.create("w", 1, "not offered")
        assert [job.id for job in await claim(store)] == [1]
        assert [job.id for job in await claim(store)] == [2]
        await writing.set_trace_callback(statements.append)
        assert await claim(store) == []
        assert statements, "the third job is queued"
        await store.transition(await store.get(3), JobStatus.KILLED, "")
        assert await claim(store) == []
        statements.clear()
        assert await claim(store) == []
        assert statements == []
        await requeue(store, await store.get(1))
        assert [job.id for job in await claim(store)] == [1]
    finally:
        await reading.close()
        await writing.close()


def filters() -> Iterator[JobFilter]:
    for user, service, tag in itertools.product((None, 5, 6), (None, "b", "c"), (None, "t")):
        for statuses in ((), (JobStatus.FAILED,), (JobStatus.RUNNING, JobStatus.QUEUED)):
            yield JobFilter(user, service, statuses, tag)


def fill(path: Path, number: int) -> None:
    choice = random.Random(1).choice  # noqa: S311 (the same jobs in each run)
    users, services, tags = (-1, 0, 5, 7), ("a", "b", "z"), ("", "t", "u")
    rows = [
        (f"{number}-{i}", choice(users), choice(services), choice(list(JobStatus)), choice(tags))
        for i in range(number)
    ]
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany(
            "INSERT INTO jobs (uuid, user_id, service, status, tag, message, created_at,"
            " changed_at) VALUES (?, ?, ?, ?, ?, '', 0, 0)",
            rows,
        )


async def test_filter_lists_jobs_of_every_status(sqlite_store: JobStore, sqlite_path: Path) -> None:
    fill(sqlite_path, 300)
    everything = await sqlite_store.lists.page(JobFilter(), MAX_JOB_ID, 1000)
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
        found = await sqlite_store.lists.page(wanted, MAX_JOB_ID, 300)
        assert [job.id for job in found] == expected, wanted


@pytest.mark.usefixtures("sqlite_store")
async def test_trap_27_no_filter_reads_more_than_its_index(sqlite_database: Database) -> None:
    small = ("of_user", "of_service", "statuses", "CONSTANT")
    with sqlite_database() as connection:
        for wanted in [JobFilter(), *filters()]:
            values = listing.page_values(wanted, MAX_JOB_ID, 50)
            plan = plan_of(connection, listing.listing(wanted), values)
            scans = [step for step in plan if step.startswith("SCAN")]
            assert all(any(name in step for name in small) for step in scans), plan
            assert all("USING" in step for step in plan if step.startswith("SEARCH jobs")), plan


@pytest.mark.usefixtures("sqlite_store")
async def test_cost_of_a_page_does_not_grow_with_the_number_of_jobs(sqlite_path: Path) -> None:
    fill(sqlite_path, 6_000)
    before = {wanted: _steps_of_page(sqlite_path, wanted) for wanted in filters()}
    fill(sqlite_path, 24_000)
    for wanted, steps in before.items():
        assert _steps_of_page(sqlite_path, wanted) <= 1.2 * steps + 500, wanted


def _steps_of_page(path: Path, wanted: JobFilter) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return steps_of(
            connection, listing.listing(wanted), listing.page_values(wanted, MAX_JOB_ID, 10)
        )
