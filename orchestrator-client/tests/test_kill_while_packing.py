"""A payload that is terminated ends soon, however much there is to pack of it."""

import asyncio

import pytest

from job_orchestrator.client.payloads import run as run_module
from running_client import Client


async def check_ended(client: Client, payload: int) -> None:
    """It is Killed, with what it said, and nothing is left of what was being packed."""
    archive = await client.archive(payload)
    assert archive.read(".orchestrator/stdout.txt") == b"said\n"
    assert not any(name.startswith("endless") for name in archive.namelist())
    assert await asyncio.to_thread(lambda: list(client.data.glob("*/.results.zip.tmp"))) == []


async def test_payload_that_is_terminated_while_it_is_packed_is_killed_at_once(
    client: Client, endless: str
) -> None:
    payload = await client.submit(endless + "exit 0\n")
    await client.eventually(lambda: any(client.data.glob("*/.results.zip.tmp")))
    killed = await client.kill(payload)
    assert (killed["status"], killed["exit_code"]) == ("Killed", 0)
    assert killed["message"] == (
        "Terminated on request, before its results were packed; only the output of run.sh was kept"
    )
    await check_ended(client, payload)


async def test_results_of_a_terminated_payload_are_packed_for_a_while_only(
    client: Client, endless: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "KILLED_PACKING_S", 0.2)
    payload = await client.submit(endless + "touch up; sleep 4731\n")
    await client.eventually(lambda: any(client.data.glob("*/work/up")))
    killed = await client.kill(payload)
    assert killed["status"] == "Killed"
    assert "only the output of run.sh was kept" in killed["message"]
    await check_ended(client, payload)
