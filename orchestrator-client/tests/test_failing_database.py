"""Failing database: whichever statement fails, each payload runs once, and none hangs."""

import asyncio
import itertools
import random
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from job_orchestrator.client.executors.local.executor import LocalExecutor
from job_orchestrator.client.payloads.runner import Runner
from job_orchestrator.client.payloads.store import PayloadStore, StoreError
from job_orchestrator.client.payloads.stored.schema import SCHEMA
from job_orchestrator.client.results.packer import Packer
from job_orchestrator.client.workspace.layout import Workspaces
from job_orchestrator.common.runtime.backoff import Backoff
from job_orchestrator.common.status import FINAL_PAYLOAD, PayloadStatus
from payload_folders import always_fit, new_workspace

PAYLOADS = 3


class FailingConnection(sqlite3.Connection):
    """Connection whose statements fail where the test decides, before or after their effect.

    Statements are executed on another connection, which does not fail.
    """

    def __init__(self, connection: sqlite3.Connection, fails: Callable[[int], str]) -> None:
        super().__init__(":memory:")
        self._working = connection
        self._fails = fails
        self._statements = itertools.count()

    def execute(self, *args: Any) -> sqlite3.Cursor:
        when = self._fails(next(self._statements))
        if when == "before":
            raise sqlite3.OperationalError("disk I/O error")
        cursor = self._working.execute(*args)
        if when == "after":
            list(cursor)  # the effect is complete once the rows have been read
            raise sqlite3.OperationalError("disk I/O error")
        return cursor


@asynccontextmanager
async def running(
    workspaces: Workspaces, fails: Callable[[int], str]
) -> AsyncIterator[tuple[PayloadStore, Runner]]:
    """Runner on a failing store, and a store on the same database that does not fail."""
    executor = LocalExecutor(workspaces, {"PATH": "/usr/bin:/bin"}, kill_grace_s=0.2)
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.executescript(SCHEMA)
        with closing(FailingConnection(connection, fails)) as failing:
            runner = Runner(
                PayloadStore(failing, time.time),
                workspaces,
                executor,
                Packer(),
                fitness=always_fit(),
                slots=2,
                backoff=Backoff.exponential(0.01, 0.02),
            )
            try:
                yield PayloadStore(connection, time.time), runner
            finally:
                await runner.stop()


async def run_all(store: PayloadStore, runner: Runner) -> list[PayloadStatus]:
    """Run passes of the runner, as its loop would, until every payload has ended."""
    async with asyncio.timeout(60):
        while True:
            try:
                await runner.run_pass()
            except StoreError:
                continue  # the loop would try again
            rows = [await store.get(payload) for payload in range(1, PAYLOADS + 1)]
            if all(row.status in FINAL_PAYLOAD for row in rows):
                return [row.status for row in rows]
            await asyncio.sleep(0.005)


async def add_payloads(store: PayloadStore, workspaces: Workspaces, log: Path) -> None:
    for payload in range(1, PAYLOADS + 1):
        script = f"echo {payload} >> {log}\n"
        await asyncio.to_thread(new_workspace, workspaces, f"p{payload}", script)
        await store.add(payload, f"p{payload}", None)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("statement", range(10))
async def test_trap_09_each_payload_runs_once_whichever_statement_fails(
    workspaces: Workspaces, tmp_path: Path, statement: int, when: str
) -> None:
    log = tmp_path / "log"
    async with running(workspaces, lambda n: when if n == statement else "") as (store, runner):
        await add_payloads(store, workspaces, log)
        states = await run_all(store, runner)
    assert states == [PayloadStatus.COMPLETED] * PAYLOADS
    assert sorted(log.read_text().split()) == ["1", "2", "3"]


async def test_trap_09_each_payload_runs_once_when_most_statements_fail(
    workspaces: Workspaces, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    # Random, because a regular pattern could coincide with the statements of an attempt.
    chance = random.Random(7)  # noqa: S311
    kinds = ("before", "", "after")
    async with running(workspaces, lambda _: chance.choice(kinds)) as (store, runner):
        await add_payloads(store, workspaces, log)
        states = await run_all(store, runner)
    assert states == [PayloadStatus.COMPLETED] * PAYLOADS
    assert sorted(log.read_text().split()) == ["1", "2", "3"]


async def test_payload_killed_while_its_start_was_in_doubt_does_not_run(
    workspaces: Workspaces, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    # Statement 0 changes payload 1 to Running, but the runner gets an error.
    async with running(workspaces, lambda n: "after" if n == 0 else "") as (store, runner):
        await add_payloads(store, workspaces, log)
        with pytest.raises(StoreError):
            await runner.run_pass()
        row, was_there = await runner.kill(1)
        assert (row.status, was_there) == (PayloadStatus.RUNNING, True)
        states = await run_all(store, runner)
    assert states == [PayloadStatus.KILLED, PayloadStatus.COMPLETED, PayloadStatus.COMPLETED]
    assert sorted(log.read_text().split()) == ["2", "3"]
