"""Services of the first version with those of this one: they speak HTTP, because it has no link."""

import asyncio
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest

from faults.workload import Workload
from harness import Portal, Service, StartClient, StartServer
from import_graph import ROOT

FIRST_VERSION = "b406c67"

pytestmark = pytest.mark.slow


@pytest.fixture
async def programs() -> Path:
    """Install the first version in an environment of its own, or find it there."""
    return await asyncio.to_thread(_installed)


def _installed() -> Path:
    command = [sys.executable, str(ROOT / "scripts" / "baseline.py"), FIRST_VERSION]
    installed = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return Path(installed.stdout.strip())


async def check_jobs(server: Service, session: aiohttp.ClientSession, folder: Path) -> None:
    """Run jobs of several kinds, terminate one, and check all results."""
    portal, workload = Portal(server.url, session), Workload(folder / "runs")
    for kind in ("quick", "failing", "big", "gated"):
        await workload.submit(portal, kind)
    endless = await workload.submit(portal, "endless")
    await portal.until(endless, "Running")
    assert (await portal.terminate(endless))[0] == 200
    workload.open_gate()
    await workload.check(portal)


async def test_client_of_the_first_version_is_used_by_http(
    programs: Path,
    start_client: StartClient,
    start_server: StartServer,
    session: aiohttp.ClientSession,
    tmp_path: Path,
) -> None:
    server = await start_server(await start_client(programs=programs))
    await check_jobs(server, session, tmp_path)


async def test_server_of_the_first_version_uses_this_client_by_http(
    programs: Path,
    start_client: StartClient,
    start_server: StartServer,
    session: aiohttp.ClientSession,
    tmp_path: Path,
) -> None:
    server = await start_server(await start_client(), programs=programs)
    await check_jobs(server, session, tmp_path)


async def test_client_that_is_updated_while_its_job_waits_loses_none(
    programs: Path,
    start_client: StartClient,
    start_server: StartServer,
    session: aiohttp.ClientSession,
    tmp_path: Path,
) -> None:
    first = await start_client(programs=programs)
    server = await start_server(first)
    portal, workload = Portal(server.url, session), Workload(tmp_path / "runs")
    await workload.submit(portal, "quick")
    await portal.end_of(max(workload.accepted))
    await first.end()
    await workload.submit(portal, "quick")
    updated = Service("jo-client", first.folder, first.settings)
    updated.url = first.url  # the same port
    await updated.start()
    try:
        await workload.check(portal)
    finally:
        await updated.end()
