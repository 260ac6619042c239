"""Isolation: what scripts in bubblewrap, or of another user, cannot reach."""

import asyncio
import os
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from job_orchestrator.client import keys
from job_orchestrator.client.executors.base import RunPhase
from job_orchestrator.client.executors.local.executor import LocalExecutor
from job_orchestrator.client.executors.local.sandbox import open_sandbox
from job_orchestrator.client.executors.local.settings import ExecutionSettings
from job_orchestrator.client.executors.local.users import UserPool, open_users
from job_orchestrator.client.model import ScriptUser
from job_orchestrator.client.settings import read_settings
from job_orchestrator.client.workspace.layout import Workspaces
from job_orchestrator.common.errors import StartupError
from mechanisms import NOBODY, cgroups_of, sandbox_of
from payload_folders import Runs, new_workspace, until_there
from running_client import StartClient

ROOT = os.geteuid() == 0
only_root = pytest.mark.skipif(not ROOT, reason="only root can start scripts as another user")

# Each line tries to escape, and prints a line if it succeeded.
ATTEMPTS = """
cat VICTIM/work/secret && echo "read another payload"
[ "$(ls -A PAYLOADS | wc -l)" -le 1 ] || echo "listed the payloads"
cat VICTIM/../../next-id && echo "read the data folder"
(exec 3<>/dev/tcp/127.0.0.1/PORT) && echo "reached the loopback"
kill -0 CLIENT && echo "signalled the client"
cat /proc/CLIENT/environ && echo "read the client's environment"
grep -l hush-hush /proc/[0-9]*/environ && echo "found a secret in an environment"
for folder in / /etc /usr /var/tmp /dev /run /sys/fs/cgroup PAYLOADS; do
  touch "$folder/jo-was-here" && echo "wrote to $folder"
done
head -c 3M /dev/zero > /tmp/big && echo "filled /tmp beyond its size"
head -c 3M /dev/zero > /dev/shm/big && echo "filled /dev/shm beyond its size"
unshare --user true && echo "made a namespace of its own"
[ -u /usr/bin/passwd ] && grep -q 'NoNewPrivs:.0' /proc/self/status && echo "may gain rights"
exit 0
"""


def attempts(workspaces: Workspaces, port: int) -> str:
    """Return the attempts against these workspaces, another payload in them, and this client."""
    victim = new_workspace(workspaces, "victim")
    (victim.work / "secret").write_text("secret")
    (workspaces.data_path / "next-id").write_text("1")
    script = ATTEMPTS.replace("VICTIM", str(victim.root)).replace("PORT", str(port))
    return script.replace("PAYLOADS", str(workspaces.root)).replace("CLIENT", str(os.getpid()))


@pytest.fixture
def workspaces(open_folder: Path) -> Workspaces:
    workspaces = Workspaces(open_folder)
    workspaces.prepare()
    workspaces.allow_traversal()
    return workspaces


@pytest.fixture
def port() -> Iterator[int]:
    """Port of a server on the loopback interface."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


async def escapes(workspaces: Workspaces, script: str, **isolation: Any) -> list[str]:
    """Run a script that tries to escape; return what it succeeded in."""
    executor = LocalExecutor(workspaces, {"PATH": os.defpath}, kill_grace_s=0.2, **isolation)
    run = await Runs(workspaces, executor).start(script)
    assert (await run.outcome()).exit_code == 0, run.workspace.stderr.read_text()
    return run.workspace.stdout.read_text().splitlines()


async def test_script_in_the_sandbox_cannot_escape(
    workspaces: Workspaces, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_SECRET", "hush-hush")
    isolation = await asyncio.to_thread(
        sandbox_of, "sandbox", workspaces.data_path, sandbox_tmp_bytes=1 << 20
    )
    script = await asyncio.to_thread(attempts, workspaces, port)
    assert await escapes(workspaces, script, **isolation) == []
    assert not any(folder.joinpath("jo-was-here").exists() for folder in (Path("/etc"), Path("/")))


async def test_attempts_to_escape_succeed_without_a_sandbox(
    workspaces: Workspaces, port: int
) -> None:
    script = (await asyncio.to_thread(attempts, workspaces, port)).replace(
        "/jo-was-here", "/."
    )  # leaves nothing behind
    succeeded = await escapes(workspaces, script.replace("3M", "3"))
    assert {"secretread another payload", "reached the loopback", "signalled the client"} <= set(
        succeeded
    )


@pytest.mark.parametrize("mechanism", ["sandbox", "sandbox in cgroup"])
async def test_run_whose_sandbox_is_killed_from_outside_is_lost(
    workspaces: Workspaces, mechanism: str
) -> None:
    isolation = await asyncio.to_thread(sandbox_of, mechanism, workspaces.data_path)
    cgroups = await asyncio.to_thread(cgroups_of, mechanism, workspaces.root)
    executor = LocalExecutor(
        workspaces, {"PATH": os.defpath}, kill_grace_s=0.2, cgroups=cgroups, **isolation
    )
    run = await Runs(workspaces, executor).start("touch up; sleep 4801\n")
    await until_there(run.workspace.work / "up")
    os.kill(run.pid, signal.SIGKILL)
    state = await run.over
    assert (state.phase, state.outcome) == (RunPhase.LOST, None)
    assert state.reason == "The sandbox was ended by signal 9 from outside"
    if cgroups is not None:
        await asyncio.to_thread(cgroups.clear)
        await asyncio.to_thread(cgroups.close)


@pytest.mark.parametrize("mechanism", ["sandbox", "sandbox in cgroup"])
async def test_run_that_is_cancelled_in_a_sandbox_has_an_outcome(
    workspaces: Workspaces, mechanism: str
) -> None:
    isolation = await asyncio.to_thread(sandbox_of, mechanism, workspaces.data_path)
    cgroups = await asyncio.to_thread(cgroups_of, mechanism, workspaces.root)
    executor = LocalExecutor(
        workspaces, {"PATH": os.defpath}, kill_grace_s=0.2, cgroups=cgroups, **isolation
    )
    run = await Runs(workspaces, executor).start("trap '' TERM; touch up; sleep 4802; sleep 4802\n")
    await until_there(run.workspace.work / "up")
    await run.cancel()
    assert (await run.outcome()).exit_code == 137
    if cgroups is not None:
        await asyncio.to_thread(cgroups.clear)
        await asyncio.to_thread(cgroups.close)


async def test_network_can_be_allowed(workspaces: Workspaces, port: int) -> None:
    isolation = await asyncio.to_thread(
        sandbox_of, "sandbox", workspaces.data_path, sandbox_network=True
    )
    script = f"(exec 3<>/dev/tcp/127.0.0.1/{port}) && echo reached\nexit 0\n"
    assert await escapes(workspaces, script, **isolation) == ["reached"]


@only_root
async def test_script_of_another_user_cannot_reach_the_client(
    workspaces: Workspaces, port: int
) -> None:
    users = await asyncio.to_thread(open_users, [NOBODY])
    script = (await asyncio.to_thread(attempts, workspaces, port)).replace("3M", "3")
    succeeded = await escapes(workspaces, script, users=users)
    # Only the sandbox prevents the other attempts.
    assert not {"signalled the client", "read the client's environment", "may gain rights"} & set(
        succeeded
    )
    assert not [line for line in succeeded if "payload" in line and "cgroup" not in line]


@only_root
async def test_payloads_of_different_users_cannot_reach_each_other(
    workspaces: Workspaces,
) -> None:
    pair = [ScriptUser(61001, 61001), ScriptUser(61002, 61002)]
    users = await asyncio.to_thread(open_users, pair)
    assert users is not None
    executor = LocalExecutor(workspaces, {"PATH": os.defpath}, kill_grace_s=0.2, users=users)
    runs = Runs(workspaces, executor)
    first = await runs.start("echo x > secret; touch up; sleep 4741\n")
    work = first.workspace.work
    await until_there(work / "up")
    with pytest.raises(BlockingIOError):
        [users.acquire() for _ in pair]
    users.release(pair[0] if work.stat().st_uid == pair[1].uid else pair[1])
    second = await runs.start(f"kill -0 {first.pid} || cat {work}/secret || exit 9\n")
    assert (await second.outcome()).exit_code == 9
    await runs.end_all()
    assert {users.acquire(), users.acquire()} == set(pair)  # both are free again


@only_root
async def test_files_of_an_ended_payload_are_closed_to_the_next_one_of_the_same_user(
    open_folder: Path, start_client: StartClient
) -> None:
    client = await start_client(DATA_PATH=str(open_folder / "data"), RUN_AS="nobody")
    first = await client.run("echo x > secret; exit 0\n")
    (secret,) = client.data.glob("*/work/secret")
    assert secret.owner() == "nobody"
    second = await client.run(f"cat {secret} || exit 9\n")
    assert second["exit_code"] == 9
    assert (await client.archive(first["id"])).read("secret") == b"x\n"


@only_root
async def test_only_what_the_script_could_read_is_packed(
    open_folder: Path, start_client: StartClient
) -> None:
    client = await start_client(DATA_PATH=str(open_folder / "data"), RUN_AS="nobody")
    payload = await client.submit("touch up; sleep 4742\n")
    await client.eventually(lambda: any(client.data.glob("*/work/up")))
    (up,) = client.data.glob("*/work/up")
    roots = up.parent / "roots"
    roots.write_text("only for root")
    roots.chmod(0o600)
    names = (await client.archive(payload)).namelist()
    assert "up" in names
    assert "roots" not in names
    await client.kill(payload)


@pytest.mark.parametrize(
    ("script", "code", "number"),
    [
        ("exit 7", 7, None),
        ("kill -TERM $$", 143, 15),
        ("kill -KILL $$", 137, 9),
        ("nope", 127, None),
    ],
)
async def test_exit_status_is_the_same_in_the_sandbox(
    workspaces: Workspaces, script: str, code: int, number: int | None
) -> None:
    isolation = await asyncio.to_thread(sandbox_of, "sandbox", workspaces.root)
    executor = LocalExecutor(workspaces, {"PATH": os.defpath}, kill_grace_s=0.2, **isolation)
    run = await Runs(workspaces, executor).start(script + "\n")
    outcome = await run.outcome()
    assert (outcome.exit_code, outcome.signal) == (code, number)


async def test_client_with_everything_runs_packs_and_removes(
    open_folder: Path, start_client: StartClient
) -> None:
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    as_user = {"RUN_AS": "nobody"} if ROOT else {}
    client = await start_client(DATA_PATH=str(open_folder / "data"), SANDBOX="bwrap", **as_user)
    script = "mkdir -m 0 closed; tr a-z A-Z < in > out; echo $TMPDIR; id -un; exit 3\n"
    payload = await client.run(script, **{"in": b"abc"})
    assert (payload["status"], payload["exit_code"]) == ("Failed", 3)
    archive = await client.archive(payload["id"])
    assert archive.read("out") == b"ABC"
    assert archive.read(".orchestrator/stdout.txt").split()[0] == b"/tmp"
    late = await client.run("(setsid sleep 4743 &); sleep 4743\n", time_limit="0.5")
    assert late["message"] == "Time limit of 0.5 s reached"
    assert await asyncio.to_thread(client.processes) == []
    ids = [payload["id"], late["id"]]
    assert await client.app[keys.RETENTION].clean(ids) == ids
    assert list(client.data.iterdir()) == []


@only_root
async def test_user_that_cannot_reach_the_data_folder_stops_the_start(
    open_folder: Path, start_client: StartClient
) -> None:
    await asyncio.to_thread(open_folder.chmod, 0o700)
    with pytest.raises(StartupError, match="RUN_AS cannot be used here: a test script failed"):
        await start_client(DATA_PATH=str(open_folder / "data"), RUN_AS="nobody")


def test_sandbox_that_cannot_isolate_stops_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ExecutionSettings(sandbox=True)
    with pytest.raises(StartupError, match="bwrap was not found: install bubblewrap"):
        open_sandbox(asked, tmp_path, str(tmp_path))
    bwrap = tmp_path / "bwrap"
    bwrap.write_text("#!/bin/sh\n")
    bwrap.chmod(0o755)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(StartupError, match="root could still read root's files: set RUN_AS"):
        open_sandbox(asked, tmp_path, str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert open_sandbox(asked, tmp_path, str(tmp_path)) is not None
    with pytest.raises(StartupError, match="RUN_AS is set, which needs jo-client to run as root"):
        open_users([NOBODY])


@pytest.mark.parametrize(
    ("held", "users"),
    [
        ("nobody", [NOBODY]),
        ("65534", [NOBODY]),
        ("3000:4000", [ScriptUser(3000, 4000)]),
        ("30000-30003", [ScriptUser(uid, uid) for uid in range(30000, 30004)]),
    ],
)
def test_run_as_accepts_users_and_ranges(held: str, users: list[ScriptUser]) -> None:
    settings = read_settings({"RUN_AS": held, "SLOTS": "4"}, {})
    assert list(settings.execution.run_as) == users


@pytest.mark.parametrize("held", ["root", "0", "0-9", "3000-3002", "no-such-user", "nobody:0", "-"])
def test_run_as_with_an_unusable_value_is_refused(held: str) -> None:
    with pytest.raises(StartupError, match=f"^RUN_AS is '{held}'; it must be a "):
        read_settings({"RUN_AS": held, "SLOTS": "4"}, {})


async def test_user_in_use_is_not_leased_again() -> None:
    users = UserPool([ScriptUser(1, 1), ScriptUser(2, 2)])
    first, second = users.acquire(), users.acquire()
    assert first != second
    with pytest.raises(BlockingIOError):
        users.acquire()
    users.release(first)
    assert users.acquire() == first
