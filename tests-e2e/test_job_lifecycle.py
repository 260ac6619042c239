"""Lifecycle of a job from upload to result, as a web app sees it, with real processes."""

import json
import signal
from pathlib import Path

import aiohttp
import psutil

from harness import Portal, Service, StartClient, StartServer, eventually

EXAMPLE = Path(__file__).parents[1] / "examples" / "interface"


async def test_example_job_finds_the_36_contacts_of_2oob(portal: Portal) -> None:
    files = {
        path.name: path.read_bytes() for path in EXAMPLE.iterdir() if path.suffix in (".py", ".pdb")
    }
    job = await portal.submit((EXAMPLE / "run.sh").read_text(), files)
    assert (await portal.end_of(job))["status"] == "Completed"
    archive = await portal.results(job)
    assert len(archive.read("contacts.tsv").splitlines()) - 1 == 36


async def test_results_contain_inputs_outputs_and_the_streams_of_the_script(portal: Portal) -> None:
    script = "echo out; echo err >&2; mkdir -p d; tr a-z A-Z < in/x.txt > d/y; echo . > .hidden\n"
    job = await portal.submit(script, {"in/x.txt": b"abc"})
    await portal.until(job, "Completed")
    archive = await portal.results(job)
    assert archive.testzip() is None
    assert archive.read("in/x.txt") == b"abc"
    assert archive.read("d/y") == b"ABC"
    assert archive.read(".hidden") == b".\n"
    assert archive.read(".orchestrator/stdout.txt") == b"out\n"
    assert archive.read(".orchestrator/stderr.txt") == b"err\n"
    assert json.loads(archive.read(".orchestrator/result.json"))["exit_code"] == 0


async def test_failed_job_reports_its_exit_code_and_keeps_its_output(portal: Portal) -> None:
    job = await portal.submit("echo half > half.txt; exit 7\n")
    state = await portal.end_of(job)
    assert state == {"id": job, "status": "Failed", "message": "run.sh exited with code 7"}
    archive = await portal.results(job, "download_partial")
    assert archive.read("half.txt") == b"half\n"


async def test_refused_script_is_invalid_with_the_reason(portal: Portal) -> None:
    job = await portal.submit("echo ok\ncurl http://example.org\n")
    state = await portal.end_of(job)
    assert state["status"] == "Invalid"
    assert "line 2" in state["message"]
    assert "curl" in state["message"]


async def test_running_job_shows_its_output_so_far(portal: Portal) -> None:
    job = await portal.submit("echo begun > begun.txt; mkfifo wait; read _ < wait\n")
    await portal.until(job, "Running")

    async def has_begun() -> bool:
        return "begun.txt" in (await portal.results(job, "download_partial")).namelist()

    await eventually(has_begun)
    assert (await portal.terminate(job))[0] == 200


async def test_output_is_followed_live_to_its_last_byte(
    portal: Portal, server: Service, session: aiohttp.ClientSession
) -> None:
    job = await portal.submit("echo begun; sleep 0.3; seq 1 20000; exit 3\n")
    url = f"{server.url}/jobs/{job}/logs"
    async with session.get(url, params={"follow": "1"}) as response:
        assert await response.content.readexactly(6) == b"begun\n"
        output = b"begun\n" + await response.read()
    assert output == b"begun\n" + b"".join(b"%d\n" % n for n in range(1, 20001))
    assert (await portal.end_of(job))["status"] == "Failed"
    async with session.get(url, params={"offset": "6"}) as response:
        assert await response.read() == output[6:]


async def test_trap_10_terminated_job_leaves_no_process_escaped_ones_included(
    portal: Portal, server: Service
) -> None:
    mark = f"3{server.pid}"
    script = (
        f"setsid nohup sleep {mark} > /dev/null 2>&1 &\n"
        f"(setsid bash -c 'trap \"\" TERM; sleep {mark} & wait; sleep {mark}' &) &\n"
        f"touch started; sleep {mark}\n"
    )
    job = await portal.submit(script)
    await portal.until(job, "Running")

    async def all_sleep() -> bool:
        return len(_sleeping(mark)) == 3

    await eventually(all_sleep)
    status, answer = await portal.terminate(job)
    assert (status, answer) == (200, {"id": job, "status": "Killed", "message": "job terminated"})
    assert _sleeping(mark) == []
    assert "started" in (await portal.results(job, "download_partial")).namelist()
    status, answer = await portal.terminate(job)
    assert (status, answer["status"]) == (409, "Killed")


async def test_finished_job_leaves_no_background_process(portal: Portal, server: Service) -> None:
    mark = f"4{server.pid}"
    job = await portal.submit(f"setsid nohup sleep {mark} > /dev/null 2>&1 &\nexit 0\n")
    await portal.until(job, "Completed")
    assert _sleeping(mark) == []


async def test_trap_13_queued_job_is_terminated_without_any_client(
    start_server: StartServer, session: aiohttp.ClientSession
) -> None:
    server = await start_server("http://127.0.0.1:9", SERVICE_EXAMPLE_MAX_ATTEMPTS="9")
    portal = Portal(server.url, session)
    jobs = [await portal.submit("exit 0\n") for _ in range(2)]
    status, answer = await portal.terminate(jobs[1])
    assert (status, answer["status"]) == (200, "Killed")


async def test_trap_52_unreachable_client_costs_no_attempt_and_the_reason_is_shown(
    start_server: StartServer, start_client: StartClient, session: aiohttp.ClientSession
) -> None:
    client = await start_client()
    await client.end(signal.SIGKILL)
    server = await start_server(client, SERVICE_EXAMPLE_MAX_ATTEMPTS="1")
    portal = Portal(server.url, session)
    job = await portal.submit("exit 0\n")

    async def reason_is_shown() -> bool:
        return "can't be reached: Connection refused" in (await portal.state(job))["message"]

    await eventually(reason_is_shown)
    assert (await portal.state(job))["status"] == "Queued"
    await client.start()
    assert (await portal.end_of(job))["status"] == "Completed"


async def test_trap_21_job_goes_to_the_other_client_if_the_first_is_down(
    start_client: StartClient, start_server: StartServer, session: aiohttp.ClientSession
) -> None:
    server = await start_server("http://127.0.0.1:9", await start_client())
    portal = Portal(server.url, session)
    jobs = [await portal.submit("exit 0\n") for _ in range(4)]
    for job in jobs:
        await portal.until(job, "Completed")


async def test_trap_06_secrets_of_the_client_are_absent_in_the_script(
    start_client: StartClient, start_server: StartServer, session: aiohttp.ClientSession
) -> None:
    client = await start_client(MY_SECRET="hush", LICENSE_FILE="/l", PASS_ENV="LICENSE_FILE")
    portal = Portal((await start_server(client)).url, session)
    job = await portal.submit("env -0 | sort -z | tr '\\0' '\\n' > seen; exit 0\n")
    await portal.until(job, "Completed")
    seen = (await portal.results(job)).read("seen").decode()
    assert "hush" not in seen
    assert "LICENSE_FILE=/l" in seen
    names = {line.partition("=")[0] for line in seen.splitlines()}
    assert {"PATH", "HOME", "LANG", "TMPDIR"} <= names


async def test_trap_07_uploaded_reserved_names_decide_nothing(portal: Portal) -> None:
    files = {".orchestrator.exit": b"0", "output.zip": b"mine", "result.json": b"{}"}
    job = await portal.submit("exit 3\n", files)
    assert (await portal.end_of(job))["message"] == "run.sh exited with code 3"
    archive = await portal.results(job, "download_partial")
    assert archive.read("output.zip") == b"mine"
    assert json.loads(archive.read(".orchestrator/result.json"))["exit_code"] == 3


async def test_odd_things_in_the_work_folder_are_skipped_and_listed(portal: Portal) -> None:
    script = (
        "mkfifo pipe; ln -s /etc/passwd outside; ln -s nowhere dangling; echo x > real\n"
        "ln -s real inside; touch -d 1970-01-01 old; touch \"$(printf 'bad\\377')\"; exit 0\n"
    )
    job = await portal.submit(script, {"ä ö/ü.txt": "ß".encode()})
    await portal.until(job, "Completed")
    archive = await portal.results(job)
    names = set(archive.namelist())
    assert {"real", "inside", "old", "ä ö/ü.txt"} <= names
    assert archive.read("inside") == b"x\n"
    assert not {"pipe", "outside", "dangling"} & names
    skipped = json.loads(archive.read(".orchestrator/result.json"))["skipped"]
    assert {entry["path"] for entry in skipped} == {"pipe", "outside", "dangling", "bad\\udcff"}


def _sleeping(mark: str) -> list[int]:
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        info = process.info
        if info["cmdline"] == ["sleep", mark] and info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process.pid)
    return found
