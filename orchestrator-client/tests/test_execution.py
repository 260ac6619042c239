"""Running payloads: exit status, slots, termination, and no process left."""

import asyncio
import json
import os
from typing import Any

import aiohttp
import pytest

from job_orchestrator.client import keys
from job_orchestrator.client.executors.local import executor as local
from job_orchestrator.client.model import PayloadRow
from job_orchestrator.client.payloads import runner as runner_module
from job_orchestrator.client.payloads.store import PayloadStore, StoreError
from running_client import Client, StartClient, zombies


@pytest.mark.parametrize(
    ("script", "status", "code"),
    [
        ("exit 0", "Completed", 0),
        ("true", "Completed", 0),
        ("exit 7", "Failed", 7),
        ("cd /; exit 3", "Failed", 3),
        ("exec false", "Failed", 1),
        ("trap 'exit 5' EXIT; exit 0", "Failed", 5),
        ("trap 'echo 0 > .orchestrator.exit' EXIT; exit 9", "Failed", 9),
        ("kill -KILL $$", "Failed", 137),
        ("kill -TERM $$", "Failed", 143),
        ("exec kill -SEGV $$", "Failed", 139),
        ("no-such-command", "Failed", 127),
        ("if", "Failed", 2),
        ("read line; exit $?", "Failed", 1),
    ],
)
async def test_trap_01_exit_status_is_that_of_the_process(
    client: Client, script: str, status: str, code: int
) -> None:
    payload = await client.run(script + "\n")
    assert payload["status"] == status
    if status == "Failed":
        assert payload["exit_code"] == code
    record = json.loads((await client.archive(payload["id"])).read(".orchestrator/result.json"))
    assert record["exit_code"] == code
    assert record["ended_at"] >= record["started_at"]
    assert (record["signal"] is None) == (code < 128)


async def test_trap_02_killed_script_is_never_completed(client: Client) -> None:
    payload = await client.submit("trap 'exit 0' TERM; touch up; while :; do sleep 0.01; done\n")
    await client.eventually(lambda: any(client.data.glob("*/work/up")))
    ended = await client.kill(payload)
    assert (ended["status"], ended["killed"]) == ("Killed", True)


async def test_trap_08_no_more_run_than_there_are_slots(start_client: StartClient) -> None:
    client = await start_client(SLOTS="2")
    gate = client.data / "gate"
    script = f"until [ -e {gate} ]; do sleep 0.01; done\n"
    payloads = [await client.submit(script) for _ in range(5)]
    await client.eventually(lambda: len(list(client.data.glob("*/stdout.txt"))) == 2)
    states = [(await client.get(payload))["status"] for payload in payloads]
    assert states == ["Running", "Running", "Prepared", "Prepared", "Prepared"]
    gate.touch()
    for payload in payloads:
        await client.until(payload, "Completed")


async def test_trap_11_payload_that_was_cancelled_before_its_start_never_runs(
    start_client: StartClient,
) -> None:
    client = await start_client(SLOTS="1")
    first = await client.submit("sleep 1000\n")
    second = await client.submit("touch ran\n")
    assert (await client.kill(second))["message"] == "Terminated before it started"
    await client.kill(first)
    third = await client.run("exit 0\n")
    assert third["status"] == "Completed"
    assert (await client.get(second))["status"] == "Killed"
    assert not list(client.data.glob("*/work/ran"))


async def test_trap_10_nothing_of_a_killed_payload_lives(client: Client) -> None:
    script = (
        "trap '' TERM HUP\n"
        "setsid nohup bash -c 'trap \"\" TERM; while :; do sleep 0.05; done' &\n"
        "(setsid sleep 1001 &)\n"
        "env -i sleep 1002 &\n"
        "touch up; while :; do sleep 0.05; done\n"
    )
    payload = await client.submit(script)
    await client.eventually(lambda: any(client.data.glob("*/work/up")))
    await client.eventually(lambda: len(client.processes()) >= 3)
    assert (await client.kill(payload))["status"] == "Killed"
    assert await asyncio.to_thread(client.processes) == []
    assert await asyncio.to_thread(zombies) == []


async def test_trap_12_kill_of_an_ended_payload_keeps_its_state(client: Client) -> None:
    payload = await client.run("exit 4\n")
    ended = await client.kill(payload["id"])
    assert (ended["status"], ended["exit_code"], ended["killed"]) == ("Failed", 4, False)


@pytest.mark.parametrize(
    "script",
    [
        "cd / && sleep 0.01",
        "exec sleep 0.01",
        "trap 'sleep 0.01' EXIT",
        "kill -KILL $$",
        "sleep 4741 > /dev/null &",
        "sleep 4742 &",
        "(trap '' TERM; exec sleep 4743) &",
    ],
)
async def test_trap_03_end_of_a_script_is_reported_within_two_seconds(
    start_client: StartClient, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    """Check that the end is noticed by itself: not by polling, nor when a pipe is closed.

    Only ending the processes that the script left may take time.
    """
    assert local.LEFTOVER_GRACE_S <= 1
    # With these intervals no pass of a loop can notice the end within the time-out of ``run``.
    monkeypatch.setattr(runner_module, "INTERVAL_S", 3600.0)
    monkeypatch.setattr(local, "REAPER_INTERVAL_S", 3600.0)
    monkeypatch.setattr(local.LocalExecutor, "poll_interval_s", 3600.0)
    client = await start_client()
    payload = await client.run(script + "\n")
    assert payload["status"] in ("Completed", "Failed")
    assert await asyncio.to_thread(client.processes) == []


async def test_trap_04_many_payloads_leave_no_zombie(client: Client) -> None:
    payloads = [await client.submit("(sleep 0.01 &) ; exit 0\n") for _ in range(60)]
    for payload in payloads:
        await client.until(payload, "Completed")
    assert await asyncio.to_thread(client.processes) == []
    await client.eventually(lambda: zombies() == [])


async def test_trap_06_script_sees_only_what_is_listed(
    start_client: StartClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_SECRET", "hush")
    client = await start_client(
        LICENSE="/l", OTHER="no", PASS_ENV="LICENSE", PATH=os.environ["PATH"]
    )
    payload = await client.run("pwd > where; env -0 > seen; exit 0\n")
    archive = await client.archive(payload["id"])
    seen = dict(entry.split("=", 1) for entry in archive.read("seen").decode().split("\0") if entry)
    where = archive.read("where").decode().strip()
    assert "hush" not in str(seen)
    assert set(seen) - {"_", "PWD", "SHLVL", "OLDPWD"} == {
        "PATH",
        "HOME",
        "LANG",
        "TMPDIR",
        "LICENSE",
        "JO_WORKSPACE",
    }
    assert seen["HOME"] == where


async def test_trap_05_output_can_be_fetched_while_it_runs_and_after(client: Client) -> None:
    payload = await client.submit("echo early; echo oops >&2; touch up; mkfifo f; read _ < f\n")
    await client.eventually(lambda: any(client.data.glob("*/work/up")))
    live = await client.archive(payload)
    assert live.read(".orchestrator/stdout.txt") == b"early\n"
    assert json.loads(live.read(".orchestrator/result.json"))["exit_code"] is None
    await client.kill(payload)
    kept = await client.archive(payload)
    assert kept.read(".orchestrator/stderr.txt") == b"oops\n"
    assert [path.name for path in client.data.glob("*/partial-*")] == []


async def test_refused_script_is_invalid_and_does_not_run(client: Client) -> None:
    payload = await client.run("touch ran\nsudo ls\n")
    assert payload["status"] == "Invalid"
    assert "'sudo ls': it asks for more privileges" in payload["message"]
    assert not list(client.data.glob("*/work/ran"))


async def test_trap_09_failing_database_runs_nothing_twice(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = client.app[keys.STORE]
    original = PayloadStore.finish
    failures = iter([StoreError("disk I/O error")] * 2)

    async def fails_twice(self: PayloadStore, *args: object, **kwargs: object) -> PayloadRow:
        error = next(failures, None)
        if error is not None and self is store:
            raise error
        return await original(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(PayloadStore, "finish", fails_twice)
    log = client.data / "runs"
    payload = await client.run(f"echo run >> {log}; exit 0\n")
    assert payload["status"] == "Completed"
    assert log.read_text() == "run\n"


async def test_concurrent_submits_with_the_same_key_give_the_same_payload(client: Client) -> None:
    log = client.data / "runs"
    script = f"echo run >> {log}; exit 0\n"
    answers = await asyncio.gather(*(client.post(script, key="job.1") for _ in range(5)))
    assert len({payload["id"] for _, payload in answers}) == 1
    other = await client.run(script, key="job.2")
    assert other["id"] != answers[0][1]["id"]
    async with client.http.get(f"/retrieve/{other['id']}") as response:
        assert response.headers["Idempotency-Key"] == "job.2"
    await client.eventually(lambda: log.read_text() == "run\nrun\n")
    assert len(list(client.data.glob("*/work"))) == 2


async def test_trap_15_and_19_restart_clears_what_was_left_and_reuses_no_id(
    start_client: StartClient,
) -> None:
    first = await start_client()
    payload = await first.submit("sleep 1003\n", key="mine.1")
    await first.eventually(lambda: len(first.processes()) >= 1)
    await first.http.close()
    await first.app.shutdown()
    assert await asyncio.to_thread(first.processes) == []
    await first.app.cleanup()
    second = await start_client()
    assert list(second.data.glob("*/work")) == []
    assert await second.submit("exit 0\n") > payload
    async with second.http.get(f"/retrieve/{payload}") as response:
        assert response.status == 404


async def test_event_stream_reports_the_load_first_and_then_every_change(client: Client) -> None:
    async with asyncio.timeout(60), client.events() as events:
        load = await anext(events)
        assert load.kind == "load"
        assert set(json.loads(load.data)) == {
            "cpu",
            "memory",
            "slots",
            "running",
            "waiting",
            "arrays",
            "draining",
            "version",
            "problem",
            "warnings",
            "limits",
            "resources",
            "resources_used",
        }
        payload = await client.submit("exit 2\n")
        states: list[dict[str, Any]] = []
        while not states or states[-1]["status"] == "Running":
            event = await anext(events)
            if event.kind == "payload":
                states.append(json.loads(event.data))
    # Packing is reported if it takes a while.
    settled = [state["status"] for state in states if not state["packing"]]
    assert settled == ["Running", "Failed"]
    assert 0 < states[-1].pop("run_s") < 60
    assert states[-1] == {
        "id": payload,
        "status": "Failed",
        "exit_code": 2,
        "message": "run.sh exited with code 2",
        "packing": False,
    }


async def test_stop_ends_event_streams_and_keeps_payloads_that_it_ended_running(
    client: Client,
) -> None:
    payload = await client.submit("sleep 1004\n")
    await client.eventually(lambda: len(client.processes()) >= 1)
    async with asyncio.timeout(60), client.events() as events:
        await client.app.shutdown()
        kinds = {event.kind async for event in events}
    assert kinds <= {"load", "payload"}
    assert (await client.get(payload))["status"] == "Running"
    assert await asyncio.to_thread(client.processes) == []


async def test_removed_results_are_gone_and_a_running_payload_cannot_be_removed(
    client: Client,
) -> None:
    ended = await client.run("exit 0\n")
    async with client.http.delete(f"/retrieve/{ended['id']}") as response:
        assert (response.status, (await response.json())["status"]) == (200, "Cleaned")
    assert list(client.data.glob("*/work")) == []
    async with client.http.get(f"/retrieve_partial/{ended['id']}") as response:
        assert response.status == 404
    running = await client.submit("sleep 1005\n")
    async with client.http.delete(f"/retrieve/{running}") as response:
        assert response.status == 409
    await client.kill(running)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/retrieve/1", 404),
        ("GET", "/retrieve/x", 400),
        ("GET", "/retrieve_partial/1", 404),
        ("POST", "/kill/1", 404),
        ("DELETE", "/retrieve/1", 404),
        ("GET", "/nothing", 404),
        ("GET", "/submit", 405),
        ("POST", "/submit", 400),
    ],
)
async def test_error_is_a_payload_with_id_0(
    client: Client, method: str, path: str, status: int
) -> None:
    async with client.http.request(method, path) as response:
        assert response.status == status
        answer = await response.json()
    assert answer.pop("message")
    assert answer == {
        "id": 0,
        "status": "Unknown",
        "input": {},
        "loc": "",
        "pid": 0,
        "killed": False,
        "exit_code": None,
        "code": "no-such-path" if path == "/nothing" else "",
    }


async def test_payload_without_script_is_refused_and_leaves_nothing(client: Client) -> None:
    form = aiohttp.FormData()
    form.add_field("x", b"x", filename="x")
    async with client.http.post("/submit", data=form) as response:
        assert response.status == 400
        assert (await response.json())["message"] == "Missing run.sh"
    assert [p.name for p in client.data.rglob("*")] == []


async def test_health_load_and_ping_answer(client: Client) -> None:
    async with client.http.get("/health") as response:
        assert (await response.json())["status"] == "healthy"
    async with client.http.get("/load") as response:
        assert 0 <= float(await response.text()) <= 100
    async with client.http.get("/") as response:
        assert await response.json() == {"message": "pong", "api": "/swagger-ui/"}
    async with client.http.get("/", headers={"Accept": "text/html"}) as response:
        assert response.url.path == "/swagger-ui/"
