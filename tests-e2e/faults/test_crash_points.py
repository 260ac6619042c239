"""``kill -9`` at every fault point: each acknowledged job ends with its results and runs once."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from faults.workload import Workload
from harness import Portal, Service, StartClient, StartServer, eventually
from job_orchestrator.common.runtime.fault_injection import Point

EXCLUDED_POINTS = {
    # These inject errors, not crashes.
    Point.DATABASE,
    Point.DISK_FLUSH,
    # These have their own tests: below, in test_crash_commits.py and in test_network.py.
    Point.SERVER_RECALLED,
    Point.CLIENT_RECALLED,
    Point.SERVER_BEFORE_COMMIT,
    Point.SERVER_COMMITTED,
    Point.SERVER_JOB_CLEANED,
    Point.CLIENT_CLEARING,
    Point.SERVER_JOB_LOST,
    Point.SERVER_STRAY_ENDED,
    Point.SERVER_RECALLED,
    Point.CLIENT_RECALLED,
}

SERVER_POINTS = sorted(p for p in Point if p.startswith("server.") and p not in EXCLUDED_POINTS)
CLIENT_POINTS = sorted(p for p in Point if p.startswith("client.") and p not in EXCLUDED_POINTS)

ONLY_IN_DATABASE = {Point.SERVER_END_ARRIVED, Point.CLIENT_ASSIGNED}
"""Points that only jobs reach whose files travel in the link."""

BEFORE_THE_SCRIPT_STARTS = {Point.CLIENT_FORM_WHOLE}
"""Points of the client at which no script has run yet, so that a crash costs no second run."""


def in_both_forms(points: Sequence[Point]) -> list[Any]:
    """Return points with values of INLINE_LIMIT: of a mixture of jobs, and of folders only."""
    mixed = [pytest.param(point, "64kB", id=str(point)) for point in points]
    folders = [
        pytest.param(point, "0", id=f"{point}-folders", marks=pytest.mark.slow)
        for point in points
        if point not in ONLY_IN_DATABASE
    ]
    return mixed + folders


class CrashScenario:
    """A server and a client, one of which crashes at a fault point and is restarted."""

    def __init__(self, portal: Portal, workload: Workload, crashing: Service) -> None:
        self.portal = portal
        self.workload = workload
        self.crashing = crashing

    async def run(self) -> None:
        """Submit jobs of several kinds and terminate some, during the crash and the restart."""
        async with self._restarting() as restart:
            for kind in ("quick", "failing", "gated", "big", "growing"):
                await self._submit(kind)
            await self._submit_and_terminate()
            self.workload.open_gate()
            # Timing decides which code path ends a terminated job: one job may miss the point.
            while not (await asyncio.wait({restart}, timeout=1.0))[0]:
                await self._submit_and_terminate()

    async def run_overtaken(self) -> None:
        """Let jobs of a user wait at the client, and a job of another user overtake them."""
        async with self._restarting() as restart:
            # Jobs wait at clients only where those before were short.
            await self._submit("short")
            await self._until_all_have_ended()
            while not (await asyncio.wait({restart}, timeout=0.1))[0]:
                for _ in range(4):
                    await self._submit("short")
                await self._submit("short", user=2)
                await self._until_all_have_ended()

    @contextlib.asynccontextmanager
    async def _restarting(self) -> AsyncIterator["asyncio.Task[None]"]:
        """Start the service again, without a fault, when it has died; it must die in the block."""
        restart = asyncio.create_task(self._restart())
        try:
            async with asyncio.timeout(120):
                yield restart
                await restart
        finally:
            restart.cancel()

    async def _until_all_have_ended(self) -> None:
        for job in self.workload.accepted:
            await self._until_done(lambda job=job: self.portal.end_of(job))  # type: ignore[misc]

    async def _submit(self, kind: str, user: int = 1) -> None:
        await self._until_done(lambda: self.workload.submit(self.portal, kind, user))

    async def _submit_and_terminate(self) -> None:
        await self._submit("endless")
        job = max(self.workload.accepted)
        await self._until_done(lambda: self._terminate(job))

    async def _terminate(self, job: int) -> None:
        async def runs() -> bool:
            return (await self.portal.state(job))["status"] in ("Running", "Killed")

        await eventually(runs)
        status, answer = await self.portal.terminate(job)
        if status != 200 and answer["status"] != "Killed":
            raise ConnectionError(f"not terminated yet: {answer}")

    async def _until_done(self, step: Callable[[], Awaitable[object]]) -> None:
        """Retry a step while the service is down, as a portal does."""
        async with asyncio.timeout(60):
            while True:
                try:
                    await step()
                except (aiohttp.ClientError, ConnectionError):
                    await asyncio.sleep(0.1)
                else:
                    return

    async def _restart(self) -> None:
        assert await self.crashing.died() == -signal.SIGKILL
        del self.crashing.settings["JO_FAULT"]
        await self.crashing.start()


@pytest.mark.parametrize(("point", "inline_limit"), in_both_forms(SERVER_POINTS))
async def test_trap_16_no_job_is_lost_or_run_twice_when_the_server_dies(
    point: Point,
    start_client: StartClient,
    start_server: StartServer,
    session: aiohttp.ClientSession,
    tmp_path: Path,
    inline_limit: str,
) -> None:
    workload = Workload(tmp_path / "runs")
    server = await start_server(
        await start_client(), JO_FAULT=str(point), INLINE_LIMIT=inline_limit
    )
    portal = Portal(server.url, session)
    await CrashScenario(portal, workload, server).run()
    await workload.check(portal)


@pytest.mark.parametrize(("point", "inline_limit"), in_both_forms(CLIENT_POINTS))
async def test_trap_16_no_job_is_lost_and_only_what_ran_is_run_again_when_the_client_dies(
    point: Point,
    start_client: StartClient,
    start_server: StartServer,
    session: aiohttp.ClientSession,
    tmp_path: Path,
    inline_limit: str,
) -> None:
    workload = Workload(tmp_path / "runs")
    client = await start_client(JO_FAULT=str(point))
    portal = Portal((await start_server(client, INLINE_LIMIT=inline_limit)).url, session)
    await CrashScenario(portal, workload, client).run()
    await workload.check(portal, max_runs=1 if point in BEFORE_THE_SCRIPT_STARTS else 2)


@pytest.mark.parametrize(
    ("point", "inline_limit"), in_both_forms([Point.SERVER_RECALLED, Point.CLIENT_RECALLED])
)
async def test_trap_16_job_that_is_called_back_during_a_crash_runs_once(
    point: Point,
    start_client: StartClient,
    start_server: StartServer,
    session: aiohttp.ClientSession,
    workload: Workload,
    inline_limit: str,
) -> None:
    # A fault point of the other service is never reached.
    client = await start_client(SLOTS="1", JO_FAULT=str(point))
    server = await start_server(
        client,
        JO_FAULT=str(point),
        INLINE_LIMIT=inline_limit,
        SERVICE_EXAMPLE_MAX_ATTEMPTS="1" if point is Point.SERVER_RECALLED else "3",
    )
    crashing = server if point is Point.SERVER_RECALLED else client
    await CrashScenario(Portal(server.url, session), workload, crashing).run_overtaken()
    # What runs while its client dies runs again; what is called back does not run there.
    await workload.check(Portal(server.url, session), max_runs=1 if crashing is server else 2)


async def test_trap_16_results_that_are_here_are_not_made_again_when_the_client_dies_later(
    start_client: StartClient,
    start_server: StartServer,
    session: aiohttp.ClientSession,
    tmp_path: Path,
) -> None:
    workload = Workload(tmp_path / "runs")
    client = await start_client(JO_FAULT=str(Point.CLIENT_DISCARDED))
    portal = Portal((await start_server(client)).url, session)
    await workload.submit(portal, "quick")
    assert await client.died() == -signal.SIGKILL
    del client.settings["JO_FAULT"]
    await client.start()
    await workload.submit(portal, "quick")
    await workload.check(portal)


@pytest.mark.parametrize("point", [Point.SERVER_RECALLED, Point.CLIENT_RECALLED])
async def test_trap_16_no_job_is_lost_when_a_service_dies_while_jobs_are_called_back(
    point: Point,
    start_client: StartClient,
    start_server: StartServer,
    session: aiohttp.ClientSession,
    tmp_path: Path,
) -> None:
    workload = Workload(tmp_path / "runs")
    faults = {point.partition(".")[0]: {"JO_FAULT": str(point)}}
    client = await start_client(SLOTS="1", **faults.get("client", {}))
    server = await start_server(client, **faults.get("server", {}))
    crashing = client if "client" in faults else server
    portal = Portal(server.url, session)
    dies = asyncio.create_task(crashing.died())
    async with asyncio.timeout(60):
        while not dies.done():
            # Short jobs wait at the client for its slot, until another user has one.
            with contextlib.suppress(aiohttp.ClientError):
                for user in (1, 1, 1, 1, 2):
                    await workload.submit(portal, "short", user)
            await asyncio.wait({dies}, timeout=1.0)
    assert await dies == -signal.SIGKILL
    del crashing.settings["JO_FAULT"]
    await crashing.start()
    await workload.check(portal, max_runs=1 if crashing is server else 2)


async def test_trap_16_a_server_that_dies_while_it_cleans_leaves_no_folder(
    start_client: StartClient, start_server: StartServer, session: aiohttp.ClientSession
) -> None:
    server = await start_server(await start_client(), MAX_AGE="0s", INLINE_LIMIT="0")
    portal = Portal(server.url, session)
    job = await portal.submit("exit 0\n")
    await portal.until(job, "Completed")
    await server.end()
    server.settings["JO_FAULT"] = "server.job-cleaned"
    with contextlib.suppress(AssertionError):  # it may crash before it listens
        await server.start()
    assert await server.died() == -signal.SIGKILL
    data = server.folder / "data"
    assert len(list(data.iterdir())) == 2, "the folder of uploads and the folder of the job"
    del server.settings["JO_FAULT"]
    await server.start()
    assert (await portal.state(job))["status"] == "Cleaned"
    assert [path.name for path in data.iterdir()] == ["incoming"]


async def test_trap_16_a_client_that_dies_twice_runs_the_job_again_and_leaves_no_folder(
    start_client: StartClient,
    start_server: StartServer,
    session: aiohttp.ClientSession,
    tmp_path: Path,
) -> None:
    workload = Workload(tmp_path / "runs")
    client = await start_client()
    portal = Portal((await start_server(client)).url, session)
    job = await workload.submit(portal, "gated")
    await portal.until(job, "Running")
    await client.end(signal.SIGKILL)
    client.settings["JO_FAULT"] = "client.clearing"
    with pytest.raises(AssertionError, match="did not start"):
        await client.start()
    assert await client.died() == -signal.SIGKILL
    del client.settings["JO_FAULT"]
    await client.start()
    workload.open_gate()
    await workload.check(portal, max_runs=2)
    assert len(list((client.folder / "data" / "payloads").iterdir())) <= 1
