"""kill -9 and restarts: every acknowledged job still ends, and runs no more often than needed."""

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
from pathlib import Path

import aiohttp
import psutil
import pytest

from harness import Portal, Service, StartClient, StartServer, eventually


def _script(log: Path, gate: Path) -> str:
    """Return a script that records each run, then waits until ``gate`` exists."""
    return f"echo run >> {log}; until [ -e {gate} ]; do sleep 0.05; done; echo done > out\n"


async def test_trap_16_jobs_survive_kill_9_of_the_server_and_run_once(
    server: Service, portal: Portal, tmp_path: Path
) -> None:
    log, gate = tmp_path / "runs", tmp_path / "gate"
    jobs = [await portal.submit(_script(log, gate), user=user) for user in range(8)]
    await portal.until(jobs[0], "Running")
    await server.end(signal.SIGKILL)
    gate.touch()
    await server.start()
    for job in jobs:
        await portal.until(job, "Completed")
        assert (await portal.results(job)).read("out") == b"done\n"
    assert log.read_text().count("run") == len(jobs)


async def test_trap_16_job_of_a_killed_client_is_run_again_and_leaves_no_process(
    start_client: StartClient,
    start_server: StartServer,
    session: aiohttp.ClientSession,
    tmp_path: Path,
) -> None:
    log, gate = tmp_path / "runs", tmp_path / "gate"
    client = await start_client()
    portal = Portal((await start_server(client)).url, session)
    job = await portal.submit(_script(log, gate))
    await portal.until(job, "Running")

    async def has_begun() -> bool:
        return log.exists()

    await eventually(has_begun)
    await client.end(signal.SIGKILL)
    await portal.until(job, "Unknown")
    await client.start()
    # The restarted client ended the processes that the killed client had left running.
    await portal.until(job, "Running")
    gate.touch()
    await portal.until(job, "Completed")
    assert log.read_text().count("run") == 2
    assert _processes_in(client.folder) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start scripts as another user")
@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
@pytest.mark.parametrize("settings", [{"SANDBOX": "bwrap"}, {"CGROUPS": "off"}, {}])
async def test_trap_16_nothing_of_a_killed_client_is_left_whatever_scripts_run_in(
    start_client: StartClient,
    start_server: StartServer,
    settings: dict[str, str],
    session: aiohttp.ClientSession,
) -> None:
    seconds = f"4751.{os.getpid()}"
    # Not in the folders of pytest, which other users cannot enter.
    with tempfile.TemporaryDirectory(prefix="jo-open-") as folder:
        await asyncio.to_thread(Path(folder).chmod, 0o711)
        data = f"{folder}/data"
        client = await start_client(DATA_PATH=data, RUN_AS="40000-40020", **settings)
        portal = Portal((await start_server(client)).url, session)
        script = f"(setsid env -i sleep {seconds} &); setsid sleep {seconds} & wait\n"
        job = await portal.submit(script)
        await portal.until(job, "Running")

        async def has_begun() -> bool:
            return len(_sleeping(seconds)) == 2

        await eventually(has_begun)
        await client.end(signal.SIGKILL)
        await client.start()
        await portal.until(job, "Running")
        await eventually(has_begun)  # only those of the second run
        assert (await portal.terminate(job))[0] == 200
        assert _sleeping(seconds) == []
        await client.end()


async def test_trap_22_sigterm_ends_client_and_server_with_status_0_and_nothing_is_lost(
    start_client: StartClient,
    start_server: StartServer,
    session: aiohttp.ClientSession,
    tmp_path: Path,
) -> None:
    log, gate = tmp_path / "runs", tmp_path / "gate"
    client = await start_client()
    server = await start_server(client)
    portal = Portal(server.url, session)
    job = await portal.submit(_script(log, gate))
    await portal.until(job, "Running")
    assert await client.end() == 0
    assert _processes_in(client.folder) == []
    assert await server.end() == 0
    assert "Traceback" not in client.logged + server.logged
    gate.touch()
    await client.start()
    await server.start()
    await portal.until(job, "Completed")


async def connected(portal: Portal, session: aiohttp.ClientSession, count: int) -> None:
    """Wait until the server is connected with so many clients, so that placement is determined."""

    async def are_connected() -> bool:
        async with session.get(f"{portal.url}/clients") as response:
            clients = (await response.json())["clients"]
        return sum(client["slots"] is not None for client in clients) == count

    await eventually(are_connected)


async def test_trap_22_job_of_a_client_that_is_stopped_runs_at_once_on_another_one(
    start_client: StartClient,
    start_server: StartServer,
    session: aiohttp.ClientSession,
    tmp_path: Path,
) -> None:
    log, gate = tmp_path / "runs", tmp_path / "gate"
    stopped, other = await start_client(), await start_client(SLOTS="1")
    portal = Portal((await start_server(stopped, other)).url, session)
    await connected(portal, session, 2)
    job = await portal.submit(_script(log, gate))
    await portal.until(job, "Running")

    async def has_begun() -> bool:
        return log.exists()

    await eventually(has_begun)
    assert await stopped.end() == 0
    assert _processes_in(stopped.folder) == []
    gate.touch()
    await portal.until(job, "Completed")  # long before LOST_AFTER
    assert log.read_text().count("run") == 2


async def test_trap_22_job_that_ends_while_its_client_drains_runs_once(
    start_client: StartClient,
    start_server: StartServer,
    session: aiohttp.ClientSession,
    tmp_path: Path,
) -> None:
    log, gate = tmp_path / "runs", tmp_path / "gate"
    client = await start_client(DRAIN_TIMEOUT="20s")
    portal = Portal((await start_server(client)).url, session)
    job = await portal.submit(_script(log, gate))
    await portal.until(job, "Running")
    ending = asyncio.create_task(client.end())

    async def drains() -> bool:
        return "Stopping: 1 payloads" in client.logged

    await eventually(drains)
    gate.touch()
    assert await ending == 0
    assert (await portal.until(job, "Completed"))["status"] == "Completed"
    assert log.read_text().count("run") == 1


async def test_trap_19_a_client_without_its_data_serves_nobody_elses_results(
    start_client: StartClient, start_server: StartServer, session: aiohttp.ClientSession
) -> None:
    client = await start_client()
    server = await start_server(client)
    portal = Portal(server.url, session)
    first = await portal.submit("mkfifo gate; echo first > out; read _ < gate\n")
    await portal.until(first, "Running")
    await server.end(signal.SIGKILL)
    await client.end(signal.SIGKILL)
    (client.folder / "data" / "next-id").unlink()
    await client.start()
    await server.start()
    second = await portal.submit("echo second > out; exit 0\n", user=2)
    await portal.until(second, "Completed")
    assert (await portal.results(second)).read("out") == b"second\n"
    await portal.until(first, "Running")
    assert (await portal.terminate(first))[0] == 200


def _sleeping(seconds: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cmdline() == ["sleep", seconds] and process.status() != "zombie":
                found.append(process)
    return found


def _processes_in(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("JO_WORKSPACE", "").startswith(str(folder)):
                found.append(process)
        except psutil.Error:
            continue
    return found
