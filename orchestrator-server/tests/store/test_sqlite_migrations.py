"""Migrations: a database of an earlier schema keeps everything that is in it."""

import asyncio
import contextlib
import shutil
import sqlite3
from importlib import resources
from pathlib import Path

from job_orchestrator.common.status import JobStatus
from job_orchestrator.server.model import JobOptions
from job_orchestrator.server.store.sqlite.maintenance import kept_jobs
from job_orchestrator.server.store.sqlite.store import open_store
from stores import claim, requeue

MIGRATIONS = resources.files("job_orchestrator.server.store.sqlite") / "migrations"


def create_first_schema(path: Path) -> None:
    """Create a database of schema version 1 with one Completed and two Queued jobs."""
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.executescript((MIGRATIONS / "0001_jobs.sql").read_text("utf-8"))
        database.execute("PRAGMA user_version = 1")
        for number in (1, 2, 3):
            database.execute(
                "INSERT INTO jobs (uuid, user_id, service, status, message, created_at, changed_at)"
                " VALUES (?, 7, 'x', 'Queued', '', ?, ?)",
                (f"u{number}", number, number),
            )
        for at, status in enumerate(("Processing", "Submitted", "Running", "Completed"), start=10):
            database.execute(
                "UPDATE jobs SET status = ?, message = ?, changed_at = ?, attempt = 1 WHERE id = 1",
                (status, f"is {status}", at),
            )
        database.execute("UPDATE jobs SET ended_at = 13, has_output = 1 WHERE id = 1")


async def test_database_of_schema_1_keeps_its_jobs_and_their_history(sqlite_path: Path) -> None:
    create_first_schema(sqlite_path)
    with contextlib.closing(sqlite3.connect(sqlite_path)) as database:
        before = database.execute("SELECT * FROM job_events ORDER BY rowid").fetchall()
    async with open_store(sqlite_path) as store:
        job = await store.get(1)
        assert (job.status, job.ended_at, job.started_at) == (JobStatus.COMPLETED, 13, 12)
        assert (job.name, job.tag, job.priority, job.output_bytes) == ("", "", 0, None)
        assert (await store.get(2)).started_at is None
        assert [claimed.id for claimed in await claim(store, 2)] == [2, 3]
        assert (await store.create("u4", 7, "x")).id == 4
    with contextlib.closing(sqlite3.connect(sqlite_path)) as database:
        rows = database.execute("SELECT * FROM job_events ORDER BY id").fetchall()
    assert [row[1:] for row in rows][: len(before)] == before
    numbers = [row[0] for row in rows]
    assert numbers[: len(before)] == list(range(1, len(before) + 1))
    assert numbers == sorted(numbers)
    assert [row[4] for row in rows[len(before) :]] == ["Processing", "Processing", "Queued"]


async def test_attempt_of_schema_4_keeps_its_key_and_the_next_one_gets_a_nonce(
    sqlite_path: Path,
) -> None:
    create_first_schema(sqlite_path)
    with contextlib.closing(sqlite3.connect(sqlite_path)) as database, database:
        for name in ("0002_lists_and_streams", "0003_usage_and_callbacks", "0004_strays"):
            database.executescript((MIGRATIONS / f"{name}.sql").read_text("utf-8"))
        database.execute("PRAGMA user_version = 4")
        database.execute("UPDATE jobs SET status = 'Processing', attempt = 1 WHERE id = 2")
    async with open_store(sqlite_path) as store:
        job = await store.get(2)
        assert job.key == "u2.1"
        await requeue(store, job)
        claimed = {job.id: job for job in await claim(store, 2)}
        assert claimed[2].key == f"u2.2.{claimed[2].nonce}"


def test_database_of_schema_6_keeps_jobs_in_folders_and_takes_files_of_others(
    sqlite_path: Path,
) -> None:
    with contextlib.closing(sqlite3.connect(sqlite_path)) as database, database:
        for script in sorted(Path(str(MIGRATIONS)).glob("000[1-6]_*.sql")):
            database.executescript(script.read_text("utf-8"))
        database.execute("PRAGMA user_version = 6")
        database.execute(
            "INSERT INTO jobs (uuid, user_id, service, status, message, created_at, changed_at)"
            " VALUES ('u1', 7, 'x', 'Queued', '', 1, 1)"
        )

    async def use() -> None:
        async with open_store(sqlite_path) as store:
            old, new = await store.get(1), await store.create("u2", 7, "x", inputs=b"files")
            assert (await store.inputs(old), await store.inputs(new)) == (None, b"files")

    asyncio.run(use())
    with kept_jobs.opened(sqlite_path) as connection:
        jobs = {job.uuid: job.inline_inputs for job in kept_jobs.kept_jobs(connection)}
        assert jobs == {"u1": False, "u2": True}
        assert kept_jobs.damage(connection) == []


def test_active_jobs_of_schema_9_are_used_slots(sqlite_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(sqlite_path)) as database, database:
        for script in sorted(Path(str(MIGRATIONS)).glob("000[1-9]_*.sql")):
            database.executescript(script.read_text("utf-8"))
        database.execute("PRAGMA user_version = 9")
        database.execute("INSERT INTO served (service, user_id, turn) VALUES ('x', 7, 3)")
        for number, user in enumerate((7, 7, 8)):
            database.execute(
                "INSERT INTO jobs (uuid, user_id, service, status, message, created_at, changed_at)"
                " VALUES (?, ?, 'x', 'Running', '', 1, 1)",
                (f"u{number}", user),
            )

    async def use() -> None:
        async with open_store(sqlite_path, lambda: 100.0):
            pass

    asyncio.run(use())
    with contextlib.closing(sqlite3.connect(sqlite_path)) as database:
        rows = database.execute("SELECT user_id, turn, slots, usage_s, usage_at FROM served")
        assert rows.fetchall() == [(7, 3, 2, 0, 100), (8, 0, 1, 0, 100)]


def test_jobs_of_schema_10_wait_for_no_others(sqlite_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(sqlite_path)) as database, database:
        for script in sorted(Path(str(MIGRATIONS)).glob("00*_*.sql")):
            if script.name < "0011":
                database.executescript(script.read_text("utf-8"))
        database.execute("PRAGMA user_version = 10")
        for held in (0, 1):
            database.execute(
                "INSERT INTO jobs (uuid, user_id, service, status, message, created_at, changed_at,"
                " held) VALUES (?, 7, 'x', 'Queued', '', 1, 1, ?)",
                (f"u{held}", held),
            )

    async def use() -> None:
        async with open_store(sqlite_path) as store:
            (job,) = await claim(store, 5)
            assert (job.uuid, job.after_success, job.after_end) == ("u0", (), ())
            after = await store.create("n", 7, "x", JobOptions(after_success=(2,)))
            assert after.open_dependencies == 1

    asyncio.run(use())


def test_commands_read_a_database_of_an_earlier_schema(sqlite_path: Path) -> None:
    create_first_schema(sqlite_path)
    with kept_jobs.opened(sqlite_path) as connection:
        jobs = list(kept_jobs.kept_jobs(connection))
        assert [(job.id, job.needs_folder) for job in jobs] == [(1, True), (2, True), (3, True)]
        assert kept_jobs.inline_result(connection, jobs[0]) is None
        assert kept_jobs.kept_job(connection, 1) == jobs[0]
        assert kept_jobs.kept_job(connection, 4) is None


async def test_trap_46_claim_after_a_restored_backup_has_another_key(
    sqlite_path: Path, tmp_path: Path
) -> None:
    async with open_store(sqlite_path) as store:
        await store.create("u", 1, "x")
    shutil.copy(sqlite_path, tmp_path / "backup.sqlite")
    async with open_store(sqlite_path) as store:
        (lost,) = await claim(store)
    async with open_store(tmp_path / "backup.sqlite") as store:
        (again,) = await claim(store)
        assert lost.attempt == again.attempt == 1
        assert lost.key != again.key
        assert store.installation.made(lost.key)
