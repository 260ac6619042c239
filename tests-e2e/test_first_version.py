"""Services of the first version with those of this one: they speak HTTP, because it has no link."""

import asyncio
import contextlib
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from faults.workload import Workload
from harness import BIN, Portal, Service, StartClient, StartServer
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


@contextlib.asynccontextmanager
async def updated(first: Service) -> AsyncIterator[None]:
    """Run this version of a service instead of the first one, with the same port and folders."""
    service = Service(first.name, first.folder, first.settings)
    service.url = first.url
    await service.start()
    try:
        yield
    finally:
        await service.end()


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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("restarted", ["server", "client"])
@pytest.mark.parametrize("older", ["server", "client"])
async def test_restart_of_either_side_loses_no_job(
    programs: Path,
    start_client: StartClient,
    start_server: StartServer,
    session: aiohttp.ClientSession,
    tmp_path: Path,
    older: str,
    restarted: str,
    number: int,
) -> None:
    client = await start_client(programs=programs if older == "client" else BIN, DRAIN_TIMEOUT="0s")
    server = await start_server(client, programs=programs if older == "server" else BIN)
    portal, workload = Portal(server.url, session), Workload(tmp_path / "runs")
    running = await workload.submit(portal, "gated")
    await workload.submit(portal, "quick")
    await portal.until(running, "Running")
    service = server if restarted == "server" else client
    await service.end(number)
    workload.open_gate()
    await service.start()
    for kind in ("quick", "failing", "big"):
        await workload.submit(portal, kind)
    # What runs while its client ends runs again.
    await workload.check(portal, max_runs=1 if restarted == "server" else 2)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_server_that_is_updated_while_jobs_run_and_wait_keeps_all(
    programs: Path,
    start_client: StartClient,
    start_server: StartServer,
    session: aiohttp.ClientSession,
    tmp_path: Path,
    number: int,
) -> None:
    client = await start_client()
    first = await start_server(client, programs=programs, SERVICE_EXAMPLE_RUNS_PER_USER="1")
    portal, workload = Portal(first.url, session), Workload(tmp_path / "runs")
    done = await workload.submit(portal, "big")
    await portal.end_of(done)
    running = await workload.submit(portal, "gated")
    await workload.submit(portal, "quick")  # it is queued
    await portal.until(running, "Running")
    await first.end(number)
    async with updated(first):
        workload.open_gate()
        await workload.submit(portal, "failing")
        await workload.check(portal)


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
    async with updated(first):
        await workload.check(portal)
