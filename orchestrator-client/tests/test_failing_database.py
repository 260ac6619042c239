"""Trap 9: with the database failing at any statement no payload runs twice, and none is stuck."""

import asyncio
import itertools
import random
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from job_orchestrator.client.executors.local.executor import LocalExecutor
from job_orchestrator.client.payloads import runner as runner_module
from job_orchestrator.client.payloads.runner import Runner
from job_orchestrator.client.payloads.store import PayloadStore, open_payloads
from job_orchestrator.client.results.packer import Packer
from job_orchestrator.client.workspace.layout import Workspaces
from job_orchestrator.common.status import FINAL_PAYLOAD, PayloadStatus
from payload_folders import new_workspace

PAYLOADS = 3


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "RETRY_S", 0.01)
    monkeypatch.setattr(runner_module, "MAX_RETRY_S", 0.02)


class FailingStore(PayloadStore):
    """A store whose statements fail where the test says, before or after their effect."""

    def __init__(self, store: PayloadStore, fails: Callable[[int], str]) -> None:
        super().__init__(store._connection, store._now)
        self._fails = fails
        self._statements = itertools.count()

    async def _execute(self, statement: str, values: Any) -> Any:
        when = self._fails(next(self._statements))
        if when == "before":
            raise sqlite3.OperationalError("disk I/O error")
        rows = await super()._execute(statement, values)
        if when == "after":
            raise sqlite3.OperationalError("disk I/O error")
        return rows


@asynccontextmanager
async def running(
    workspaces: Workspaces, fails: Callable[[int], str]
) -> AsyncIterator[tuple[PayloadStore, Runner]]:
    """A runner on a failing store, and the store as it is when it does not fail."""
    executor = LocalExecutor(workspaces.root, {"PATH": "/usr/bin:/bin"}, kill_grace_s=0.2)
    async with open_payloads() as store:
        failing = FailingStore(store, fails)
        runner = Runner(failing, workspaces, executor, Packer(), slots=2)
        try:
            yield store, runner
        finally:
            await runner.stop()


async def run_all(store: PayloadStore, runner: Runner) -> list[PayloadStatus]:
    """Let the runner pass, as its loop would, until every payload has ended."""
    async with asyncio.timeout(20):
        while True:
            try:
                await runner.run_pass()
            except sqlite3.OperationalError:
                continue  # its loop tries again
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
    # Without a period, which could be just that of an attempt.
    chance = random.Random(7)  # noqa: S311
    kinds = ("before", "", "after")
    async with running(workspaces, lambda _: chance.choice(kinds)) as (store, runner):
        await add_payloads(store, workspaces, log)
        states = await run_all(store, runner)
    assert states == [PayloadStatus.COMPLETED] * PAYLOADS
    assert sorted(log.read_text().split()) == ["1", "2", "3"]


async def test_payload_cancelled_while_it_was_in_doubt_does_not_run(
    workspaces: Workspaces, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    # Statement 0 makes payload 1 Running, and the runner does not hear of it.
    async with running(workspaces, lambda n: "after" if n == 0 else "") as (store, runner):
        await add_payloads(store, workspaces, log)
        with pytest.raises(sqlite3.OperationalError):
            await runner.run_pass()
        row, was_there = await runner.kill(1)
        assert (row.status, was_there) == (PayloadStatus.RUNNING, True)
        states = await run_all(store, runner)
    assert states == [PayloadStatus.KILLED, PayloadStatus.COMPLETED, PayloadStatus.COMPLETED]
    assert sorted(log.read_text().split()) == ["2", "3"]
