"""Costs of a trivial job in counts that do not depend on the machine."""

import asyncio
import itertools
import sqlite3
import statistics
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

from bench.counting import requests, statements, syscalls
from bench.counting.commits import commits
from bench.floors.scripts import SCRIPT
from bench.http import Connection, Form
from bench.outcome import Outcome, Row
from bench.services import Service, pair
from bench.sizes import Size

REQUESTS = 0
COMMITS = 2
WARM_UP = 2
ACKNOWLEDGED_WITHIN_S = 10.0
POLL_S = 0.02


async def measure(folder: Path, size: Size) -> Outcome:
    """Count requests, commits and statements of jobs, then their system calls under strace."""
    form = Form.of({"user_id": "1", "service": "bench"}, {"run.sh": SCRIPT.encode()})
    details = await _requests_and_commits(folder / "plain", form, size.counted_jobs)
    if syscalls.available():
        details |= await _system_calls(folder / "traced", form, size.counted_jobs)
    rows = [
        Row(
            "HTTP requests between the services for a job, in addition to the link",
            sum(details["requests_per_job"].values()),
            "requests",
            REQUESTS,
            f"at most {REQUESTS}",
            at_most=True,
        ),
        Row(
            "commits for a job",
            statistics.median(details["commits_of_each_job"]),
            "commits",
            COMMITS,
            f"at most {COMMITS}",
            at_most=True,
        ),
    ]
    return Outcome(rows, details)


async def _requests_and_commits(folder: Path, form: Form, jobs: int) -> dict[str, Any]:
    traces = {name: folder / f"{name}.sql" for name in ("jo-server", "jo-client")}
    async with (
        pair(folder, wrap=lambda name: statements.wrapper(traces[name])) as services,
        Connection(services.server.url) as portal,
    ):
        database, log = services.server.folder / "db.sqlite", services.client.log
        for _ in range(WARM_UP):
            await portal.result(await portal.submit(form))
        await _all_acknowledged(database)
        requests_before = requests.count(log)
        before = {name: statements.count(file) for name, file in traces.items()}
        committed = [commits(database)]
        for _ in range(jobs):
            await portal.result(await portal.submit(form))
            committed.append(commits(database))
        executed = {name: statements.count(file) - before[name] for name, file in traces.items()}
        await _all_acknowledged(database)
        sent = requests.count(log) - requests_before
    return {
        "requests_per_job": _per_job(sent, jobs),
        "commits_of_each_job": [b - a for a, b in itertools.pairwise(committed)],
        "statements_per_job": {name: _per_job(counts, jobs) for name, counts in executed.items()},
    }


async def _all_acknowledged(database: Path) -> None:
    """Wait until the server has acknowledged the results that it stored.

    The acknowledgement is the last request about a job, so all others have been logged by then.
    """
    async with asyncio.timeout(ACKNOWLEDGED_WITHIN_S):
        while _unacknowledged(database):  # noqa: ASYNC110 (there is no event)
            await asyncio.sleep(POLL_S)


def _unacknowledged(database: Path) -> int:
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
        ((count,),) = connection.execute("SELECT count(*) FROM acknowledgements")
    return int(count)


async def _system_calls(folder: Path, form: Form, jobs: int) -> dict[str, Any]:
    files = {name: folder / f"{name}.strace" for name in ("jo-server", "jo-client")}
    async with (
        pair(folder, wrap=lambda name: syscalls.wrapper(files[name])) as services,
        Connection(services.server.url) as portal,
    ):
        for _ in range(WARM_UP):
            await portal.result(await portal.submit(form))
        traces = {name: syscalls.Trace(file) for name, file in files.items()}
        for _ in range(jobs):
            await portal.result(await portal.submit(form))
        both = services.by_name()
        return {
            "flushes_per_job": {
                name: _per_job(traces[name].flushes(service.folder), jobs)
                for name, service in both.items()
            },
            "system_calls_per_job": {
                name: _per_job(traces[name].calls(_threads(service)), jobs)
                for name, service in both.items()
            },
        }


def _threads(service: Service) -> set[int]:
    return {thread.id for thread in service.process.threads()}


def _per_job(counts: Counter[str], jobs: int) -> dict[str, float]:
    return {what: count / jobs for what, count in counts.most_common()}
