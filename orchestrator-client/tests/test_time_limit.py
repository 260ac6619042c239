"""Time limit: a payload that reaches it is ended with all its processes, and its output is kept."""

import asyncio

import pytest

from running_client import Client

ESCAPES = (
    "trap '' TERM\n"
    "setsid nohup bash -c 'trap \"\" TERM; while :; do sleep 0.05; done' &\n"
    "(setsid sleep 1011 &)\n"
    "env -i sleep 1012 &\n"
)


async def test_payload_is_ended_at_its_time_limit_with_escaped_processes(client: Client) -> None:
    script = f"{ESCAPES}echo so far; while :; do sleep 0.05; done\n"
    payload = await client.run(script, time_limit="0.5")
    assert (payload["status"], payload["message"]) == ("Failed", "Time limit of 0.5 s reached")
    assert await asyncio.to_thread(client.processes) == []
    archive = await client.archive(payload["id"])
    assert archive.read(".orchestrator/stdout.txt") == b"so far\n"


async def test_script_that_exits_with_0_at_its_time_limit_has_failed(
    client: Client,
) -> None:
    script = "trap 'echo saved > result; exit 0' TERM; while :; do sleep 0.01; done\n"
    payload = await client.run(script, time_limit="0.3")
    assert (payload["status"], payload["exit_code"]) == ("Failed", 0)
    assert payload["message"] == "Time limit of 0.3 s reached"
    assert (await client.archive(payload["id"])).read("result") == b"saved\n"


async def test_payload_that_ends_before_its_time_limit_keeps_its_exit_code(client: Client) -> None:
    assert (await client.run("exit 3\n", time_limit="1000"))["exit_code"] == 3


async def test_cancelled_payload_with_a_time_limit_is_killed(client: Client) -> None:
    payload = await client.submit("touch up; sleep 1013\n", time_limit="1000")
    await client.eventually(lambda: any(client.data.glob("*/work/up")))
    assert (await client.kill(payload))["status"] == "Killed"


@pytest.mark.parametrize("limit", ["soon", "-1", "0", "nan", "inf", "1e999", "1e308"])
async def test_invalid_time_limit_is_refused(client: Client, limit: str) -> None:
    status, answer = await client.post("exit 0\n", time_limit=limit)
    assert status == 400
    assert answer["message"] == f"Invalid Time-Limit '{limit}', should be a number of seconds"
