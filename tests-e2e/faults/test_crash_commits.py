"""``kill -9`` of the server before and after every commit of a job's lifecycle."""

import contextlib
import signal
import sqlite3
from itertools import count
from pathlib import Path

import aiohttp
import pytest

from faults.workload import Workload
from harness import FINAL, Portal, Service, StartClient, StartServer, eventually
from job_orchestrator.common.runtime.fault_injection import Point

NO_JOB = ""


def states(server: Service) -> list[str]:
    """Read the states of all jobs from a server's database; the server need not run."""
    with contextlib.closing(sqlite3.connect(server.folder / "db.sqlite")) as database:
        return [status for (status,) in database.execute("SELECT status FROM jobs")]


def history(server: Service) -> set[str]:
    """Read all states that a server's database has recorded. Several may be of one transaction."""
    with contextlib.closing(sqlite3.connect(server.folder / "db.sqlite")) as database:
        return {status for (status,) in database.execute("SELECT to_status FROM job_events")}


MAX_ATTEMPTS = 4


async def crashes_during_a_job(server: Service, portal: Portal, workload: Workload) -> bool:
    """Submit a job and wait for its end; True if the server crashes first."""
    try:
        job = await workload.submit(portal, "short")
        await portal.end_of(job)
    except aiohttp.ClientError:
        assert await server.died() == -signal.SIGKILL
        return True
    return False


async def check_recovery(server: Service, portal: Portal, workload: Workload) -> None:
    """Restart a server. Its job must end as expected, even one that was not acknowledged."""
    del server.settings["JO_FAULT"]
    await server.start()
    portal.url = server.url
    await workload.check(portal)

    async def all_have_ended() -> bool:
        return FINAL.issuperset(states(server))

    await eventually(all_have_ended)
    assert max(workload.runs().values(), default=0) <= 1


@pytest.mark.parametrize(
    "inline_limit", [pytest.param("0", id="folders", marks=pytest.mark.slow), "64kB"]
)
@pytest.mark.parametrize(
    ("point", "expected_states"),
    [
        (Point.SERVER_BEFORE_COMMIT, {NO_JOB, "Queued", "Processing", "Submitted", "Running"}),
        (
            Point.SERVER_COMMITTED,
            {NO_JOB, "Queued", "Processing", "Submitted", "Running", "Completed"},
        ),
    ],
)
async def test_trap_16_no_job_is_lost_or_run_twice_at_any_commit_of_its_life(
    inline_limit: str,
    start_client: StartClient,
    start_server: StartServer,
    session: aiohttp.ClientSession,
    tmp_path: Path,
    point: Point,
    expected_states: set[str],
) -> None:
    client, seen = await start_client(), set[str]()
    # On a busy machine some changes share a commit: begin again until each had one of its own.
    for attempt in range(MAX_ATTEMPTS):
        for number in count(1):
            try:
                server = await start_server(
                    client, JO_FAULT=f"{point}:{number}", INLINE_LIMIT=inline_limit
                )
            except AssertionError:
                continue  # it crashed during its start, which commits too
            runs = tmp_path / f"runs-{attempt}-{number}"
            portal, workload = Portal(server.url, session), Workload(runs)
            has_crashed = await crashes_during_a_job(server, portal, workload)
            if has_crashed:
                found = history(server)
                seen.update(found or {NO_JOB})
                if found:
                    await check_recovery(server, portal, workload)
            await server.end()
            if not has_crashed:
                break
        if seen == expected_states:
            break
    assert seen == expected_states


@pytest.mark.slow
@pytest.mark.parametrize("point", [Point.SERVER_BEFORE_COMMIT, Point.SERVER_COMMITTED])
@pytest.mark.parametrize("status", ["Completed", "Failed"])
async def test_jobs_after_other_jobs_end_whatever_commit_of_the_server_was_the_last(
    start_client: StartClient,
    start_server: StartServer,
    session: aiohttp.ClientSession,
    tmp_path: Path,
    point: Point,
    status: str,
) -> None:
    client = await start_client()
    for number in count(1):
        try:
            server = await start_server(client, JO_FAULT=f"{point}:{number}")
        except AssertionError:
            continue  # it crashed during its start, which commits too
        portal, log = Portal(server.url, session), tmp_path / f"runs-{number}"
        jobs: list[int] = []
        crashed = True
        with contextlib.suppress(aiohttp.ClientError):
            end = "exit 0" if status == "Completed" else "exit 1"
            jobs.append(await portal.submit(f"echo first >> '{log}'; echo 1 > out; {end}\n"))
            for _ in range(2):
                before = jobs[-1]
                script = f"cp .inputs/{before}/out out && echo {before} >> '{log}'\n"
                jobs.append(await portal.submit(script, after=str(before)))
            await portal.end_of(jobs[-1])
            crashed = False
        if crashed:
            assert await server.died() == -signal.SIGKILL
            del server.settings["JO_FAULT"]
            await server.start()
            portal.url = server.url
        assert [(await portal.end_of(job))["status"] for job in jobs] == [status] * len(jobs)
        runs = log.read_text().split() if log.exists() else []
        assert len(runs) == len(set(runs))
        if jobs and status == "Completed":
            assert len(runs) >= len(jobs)
        await server.end()
        if not crashed:
            break
