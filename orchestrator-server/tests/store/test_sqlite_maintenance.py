"""Consistency checks and repairs of the database, which run without the server."""

import asyncio
from pathlib import Path

from job_orchestrator.server.model import JobOptions
from job_orchestrator.server.store.sqlite.maintenance.counters import (
    recount_dependencies,
    recount_usage,
    wrong_dependencies,
    wrong_usage,
)
from job_orchestrator.server.store.sqlite.maintenance.kept_jobs import opened
from job_orchestrator.server.store.sqlite.store import open_store


async def test_wrong_counters_of_a_user_are_found_and_counted_again(sqlite_path: Path) -> None:
    async with open_store(sqlite_path) as store:
        for user in range(3):
            await store.create(f"{user}", user, "x", input_bytes=10)

    def work() -> None:
        with opened(sqlite_path) as connection:
            assert wrong_usage(connection) == []
            connection.execute("UPDATE usage SET queued = 7 WHERE user_id = 1")
            connection.execute("DELETE FROM usage WHERE user_id = 2")
            assert sorted(wrong_usage(connection)) == [1, 2]
            recount_usage(connection)
            assert wrong_usage(connection) == []

    await asyncio.to_thread(work)


async def test_wrong_numbers_of_dependencies_are_found_and_counted_again(
    sqlite_path: Path,
) -> None:
    async with open_store(sqlite_path) as store:
        await store.create("a", 1, "x")
        await store.create("b", 1, "x", JobOptions(after_success=(1,)))

    def work() -> None:
        with opened(sqlite_path) as connection:
            assert wrong_dependencies(connection) == []
            connection.execute("UPDATE jobs SET open_dependencies = 1 - open_dependencies")
            assert wrong_dependencies(connection) == [1, 2]
            recount_dependencies(connection)
            assert wrong_dependencies(connection) == []
            rows = connection.execute("SELECT open_dependencies FROM jobs ORDER BY id")
            assert rows.fetchall() == [(0,), (1,)]

    await asyncio.to_thread(work)
