"""Full, read-only and slow disks, failing databases: reported, survived, recovered from."""

import signal
import subprocess
from pathlib import Path

import aiohttp
import pytest

from faults.conftest import Mount
from faults.workload import Workload
from harness import Portal, Service, StartClient, StartServer, eventually

MIB = 1 << 20


def _fill(folder: Path) -> None:
    """Fill a disk."""
    with (folder / "filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return


def _remount(disk: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(disk)], check=True)


@pytest.mark.parametrize(("inline_limit", "folders"), [("0", 2), ("1MB", 0)])
async def test_trap_37_full_disk_of_the_server_is_507_and_jobs_wait_for_room(
    inline_limit: str,
    folders: int,
    start_client: StartClient,
    start_server: StartServer,
    session: aiohttp.ClientSession,
    mount: Mount,
    workload: Workload,
) -> None:
    disk = mount("8m")
    server = await start_server(
        await start_client(),
        DATA_PATH=str(disk / "data"),
        DB_PATH=str(disk / "db.sqlite"),
        INLINE_LIMIT=inline_limit,
    )
    portal = Portal(server.url, session)
    job = await workload.submit(portal, "gated")
    await portal.until(job, "Running")
    _fill(disk)
    with pytest.raises(AssertionError, match="disk is full"):
        await portal.submit("exit 0\n", {"big": b"x" * MIB})
    workload.open_gate()

    async def waits() -> bool:
        return "next try in" in server.logged

    await eventually(waits)
    (disk / "filler").unlink()
    await workload.submit(portal, "quick")
    await workload.check(portal)
    left = [path for path in (disk / "data").iterdir() if path.name != "incoming"]
    assert len(left) == folders


async def test_trap_37_full_disk_of_a_client_costs_jobs_a_wait(
    start_client: StartClient,
    start_server: StartServer,
    session: aiohttp.ClientSession,
    mount: Mount,
    workload: Workload,
) -> None:
    disk = mount("8m")
    client = await start_client(DATA_PATH=str(disk / "data"))
    server = await start_server(client, SERVICE_EXAMPLE_MAX_ATTEMPTS="1")
    portal = Portal(server.url, session)
    _fill(disk)
    job = await workload.submit(portal, "quick")

    async def is_reported() -> bool:
        return "The disk is full" in (await portal.state(job))["message"]

    await eventually(is_reported)
    (disk / "filler").unlink()
    await server.end()  # a restarted server does not wait for the rest of the back-off
    await server.start()
    await workload.check(portal)


async def test_trap_37_client_whose_payload_has_filled_the_disk_starts_again_and_makes_room(
    start_client: StartClient,
    start_server: StartServer,
    session: aiohttp.ClientSession,
    mount: Mount,
    workload: Workload,
) -> None:
    disk = mount("8m")
    client = await start_client(DATA_PATH=str(disk / "data"))
    portal = Portal((await start_server(client)).url, session)
    job = await workload.submit(portal, "gated")
    await portal.until(job, "Running")
    _fill(disk / "data" / "payloads")
    await client.end(signal.SIGKILL)
    await client.start()
    workload.open_gate()
    await workload.submit(portal, "quick")
    await workload.check(portal, max_runs=2)


async def test_read_only_disk_of_a_client_is_reported_and_survived(
    start_client: StartClient,
    start_server: StartServer,
    session: aiohttp.ClientSession,
    mount: Mount,
    workload: Workload,
) -> None:
    disk = mount("8m")
    client = await start_client(DATA_PATH=str(disk / "data"))
    portal = Portal((await start_server(client)).url, session)
    await workload.submit(portal, "quick")
    await workload.check(portal)
    _remount(disk, "ro")
    async with session.get(f"{client.url}/health") as response:
        assert response.status == 500
        assert "Read-only file system" in (await response.json())["message"]
    job = await workload.submit(portal, "quick")

    async def is_submitted() -> bool:
        return (await portal.state(job))["status"] in ("Queued", "Failed")

    await eventually(is_submitted)
    _remount(disk, "rw")
    await workload.check(portal)


async def test_jobs_complete_on_a_slow_disk(
    start_client: StartClient,
    start_server: StartServer,
    session: aiohttp.ClientSession,
    workload: Workload,
) -> None:
    server = await start_server(await start_client(), JO_FAULT="disk.flush:1*:slow")
    portal = Portal(server.url, session)
    for kind in ("quick", "failing"):
        await workload.submit(portal, kind)
    async with session.get(f"{server.url}/") as response:
        assert response.status == 200
    await workload.check(portal)


async def _submit_jobs(portal: Portal, workload: Workload, server: Service) -> None:
    """Submit jobs to a server whose database may fail; such a job is not acknowledged."""
    for kind in ("quick", "failing", "quick"):
        try:
            await workload.submit(portal, kind)
        except AssertionError as error:
            assert "Internal error" in str(error), error  # noqa: PT017


@pytest.mark.parametrize("statement", range(8, 44, 6))
async def test_trap_09_no_job_runs_twice_whichever_statement_of_the_server_fails(
    start_client: StartClient,
    start_server: StartServer,
    session: aiohttp.ClientSession,
    workload: Workload,
    statement: int,
) -> None:
    client = await start_client()
    try:
        server = await start_server(client, JO_FAULT=f"database:{statement}")
    except AssertionError:
        return  # the start needs this statement, and failed with a message
    portal = Portal(server.url, session)
    await _submit_jobs(portal, workload, server)
    await workload.check(portal)


@pytest.mark.parametrize("every", [7, 10])
async def test_trap_09_no_job_runs_twice_when_statements_fail_again_and_again(
    start_client: StartClient,
    start_server: StartServer,
    session: aiohttp.ClientSession,
    workload: Workload,
    every: int,
) -> None:
    client = await start_client(JO_FAULT=f"database:{every}*")
    portal = Portal((await start_server(client, SERVICE_EXAMPLE_MAX_ATTEMPTS="99")).url, session)
    for kind in ("quick", "failing", "quick"):
        await workload.submit(portal, kind)
    await workload.check(portal)
