"""Termination of a payload while its results are packed, however large they are."""

import asyncio

import pytest

from job_orchestrator.client.payloads import run as run_module
from running_client import Client


async def check_only_output_kept(client: Client, payload: int) -> None:
    """Check that the payload's output was kept, and no unfinished archive."""
    archive = await client.archive(payload)
    assert archive.read(".orchestrator/stdout.txt") == b"said\n"
    assert not any(name.startswith("endless") for name in archive.namelist())
    assert await asyncio.to_thread(lambda: list(client.data.glob("*/.results.*"))) == []


async def test_kill_during_packing_ends_the_payload_immediately(
    client: Client, endless: str
) -> None:
    payload = await client.submit(endless + "exit 0\n")
    await client.eventually(lambda: any(client.data.glob("*/.results.*")))
    killed = await client.kill(payload)
    assert (killed["status"], killed["exit_code"]) == ("Killed", 0)
    assert killed["message"] == (
        "Terminated on request, before its results were packed; only the output of run.sh was kept"
    )
    await check_only_output_kept(client, payload)


async def test_kill_before_packing_limits_its_time(
    client: Client, endless: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The client runs as a whole here, and the time is not one of its settings.
    monkeypatch.setattr(run_module, "KILLED_PACKING_S", 0.2)
    payload = await client.submit(endless + "touch up; sleep 4731\n")
    await client.eventually(lambda: any(client.data.glob("*/work/up")))
    killed = await client.kill(payload)
    assert killed["status"] == "Killed"
    assert "only the output of run.sh was kept" in killed["message"]
    await check_only_output_kept(client, payload)
