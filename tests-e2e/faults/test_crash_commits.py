"""``kill -9`` before and after every commit of a job's life."""

import contextlib
import signal
import sqlite3
from itertools import count
from pathlib import Path

import aiohttp
import pytest

from faults.work import Workload
from harness import FINAL, Portal, Service, StartClient, StartServer, eventually
from job_orchestrator.common.runtime.fault_injection import Point

NOWHERE = ""


def states(server: Service) -> list[str]:
    """Return the states of all jobs in the database of a server, which may be dead."""
    with contextlib.closing(sqlite3.connect(server.folder / "db.sqlite")) as database:
        return [status for (status,) in database.execute("SELECT status FROM jobs")]


async def dies_with_a_job(server: Service, portal: Portal, workload: Workload) -> bool:
    """Submit a job and follow it to its end. Return whether the server died before."""
    try:
        job = await workload.submit(portal, "quick")
        await portal.end_of(job)
    except aiohttp.ClientError:
        assert await server.died() == -signal.SIGKILL
        return True
    return False


async def recovers(server: Service, portal: Portal, workload: Workload) -> None:
    """Check that after a restart the job ends, also if its submission was not answered."""
    del server.settings["JO_FAULT"]
    await server.start()
    portal.url = server.url
    await workload.check(portal)

    async def all_have_ended() -> bool:
        return FINAL.issuperset(states(server))

    await eventually(all_have_ended)
    assert max(workload.runs().values(), default=0) <= 1


@pytest.mark.parametrize(
    ("point", "seen_at_its_death"),
    [
        (Point.SERVER_BEFORE_COMMIT, {NOWHERE, "Queued", "Processing", "Submitted"}),
        (Point.SERVER_COMMITTED, {NOWHERE, "Queued", "Processing", "Submitted", "Completed"}),
    ],
)
async def test_trap_16_no_job_is_lost_or_run_twice_at_any_commit_of_its_life(
    start_client: StartClient,
    start_server: StartServer,
    session: aiohttp.ClientSession,
    tmp_path: Path,
    point: Point,
    seen_at_its_death: set[str],
) -> None:
    client, seen = await start_client(), set[str]()
    for number in count(1):
        try:
            server = await start_server(client, JO_FAULT=f"{point}:{number}")
        except AssertionError:
            continue  # a start commits as well
        portal, workload = Portal(server.url, session), Workload(tmp_path / f"runs-{number}")
        if not await dies_with_a_job(server, portal, workload):
            break
        found = states(server)
        seen.update(found or [NOWHERE])
        if found:
            await recovers(server, portal, workload)
        await server.end()
    assert seen - {"Running"} == seen_at_its_death
