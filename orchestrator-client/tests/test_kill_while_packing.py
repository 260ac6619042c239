"""Termination of a payload while its results are packed, however large they are."""

import asyncio
import json

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


async def test_packing_that_takes_long_is_reported_as_an_event_and_by_retrieve(
    client: Client, endless: str
) -> None:
    async with asyncio.timeout(60), client.events() as events:
        payload = await client.submit(endless + "exit 0\n")
        messages = []
        async for event in events:
            data = json.loads(event.data)
            if event.kind == "payload":
                messages.append((data["status"], data["message"]))
            if messages and messages[-1] != ("Running", ""):
                break
    assert messages[-1] == ("Running", "Its results are being packed")
    shown = await client.get(payload)
    assert (shown["status"], shown["message"]) == messages[-1]
    await client.kill(payload)
