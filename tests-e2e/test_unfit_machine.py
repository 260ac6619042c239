"""A machine that can't start scripts: its jobs wait or run elsewhere, and no attempt is lost."""

import asyncio
import os
import shutil
from pathlib import Path

import aiohttp

from harness import Portal, StartClient, StartServer, eventually


async def test_trap_50_fault_of_the_machine_costs_a_job_no_attempt(
    start_client: StartClient,
    start_server: StartServer,
    session: aiohttp.ClientSession,
    tmp_path: Path,
) -> None:
    programs = tmp_path / "programs"
    await asyncio.to_thread(programs.mkdir)
    bash = programs / "bash"
    client = await start_client(PATH=f"{programs}")
    server = await start_server(client, SERVICE_EXAMPLE_MAX_ATTEMPTS="1")
    portal = Portal(server.url, session)

    async def only_client() -> dict[str, object]:
        async with session.get(f"{server.url}/clients") as response:
            (found,) = (await response.json())["clients"]
            return dict(found)

    async def has_a_fault() -> bool:
        found = await only_client()
        return found["draining"] is True and "can't be started" in str(found["problem"])

    job = await portal.submit("exit 0\n")
    await eventually(has_a_fault)
    await portal.until(job, "Queued")
    await asyncio.to_thread(bash.symlink_to, shutil.which("bash", path=os.defpath) or "")
    assert (await portal.end_of(job))["status"] == "Completed"
    async with session.get(f"{server.url}/jobs/{job}") as response:
        detail = await response.json()
    assert detail["failures"] == 0
    assert any("could not start or continue it" in step["why"] for step in detail["history"])
    assert (await only_client())["problem"] == ""
