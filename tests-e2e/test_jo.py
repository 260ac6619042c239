"""Command jo with real services, as used by scripts and by people at a terminal."""

import asyncio
import contextlib
import json
import os
import pty
import signal
import termios
import zipfile
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from harness import StartClient, StartServer, eventually
from jo_command import TIMEOUT_S, Jo, write
from job_orchestrator.sdk import AsyncClient

SUBMIT = ("submit", "--service", "example", "--user", "1")


async def test_submit_with_output_waits_and_unpacks_the_results(jo: Jo) -> None:
    write(jo, "tr a-z A-Z < in/x.txt > out.txt\n", "job/run.sh")
    (jo.folder / "job" / "in").mkdir()
    (jo.folder / "job" / "in" / "x.txt").write_text("abc")
    run = await jo(*SUBMIT, "job", "-o", "results", "--name", "my job", "--tag", "t")
    assert (run.code, run.out) == (0, ""), run.err
    assert "Submitted as job 1" in run.err
    assert "Job 1 is Completed" in run.err
    assert (jo.folder / "results" / "out.txt").read_text() == "ABC"
    assert sorted(path.name for path in jo.folder.iterdir()) == ["job", "results"]
    again = await jo("download", "1", "-o", "results")
    assert again.code == 1
    assert "results exists already and is not empty" in again.err
    assert (await jo("download", "1")).err == "Results in job-1.zip\n"
    (jo.folder / "mine.zip").write_text("mine")
    refused = await jo("download", "1", "-o", "mine.zip")
    assert (refused.code, (jo.folder / "mine.zip").read_text()) == (1, "mine")
    assert refused.err == "jo: mine.zip exists already: give another name, or remove it\n"
    assert zipfile.ZipFile(jo.folder / "job-1.zip").read("out.txt") == b"ABC"


async def test_submit_without_a_wait_prints_only_the_id_for_other_commands(jo: Jo) -> None:
    write(jo, "echo done\n")
    run = await jo(*SUBMIT, "run.sh")
    assert (run.code, run.out, run.err) == (0, "1\n", "")
    waited = await jo("wait", "1", "--json")
    assert (waited.code, waited.json["status"], waited.err) == (0, "Completed", "")
    assert (await jo("status", "1", "--json")).json["id"] == 1
    shown = (await jo("status", "1")).out
    assert "Completed" in shown
    assert "Queued" in shown, "the history"


@pytest.mark.parametrize(
    ("script", "code", "text"),
    [
        ("exit 7\n", 7, "Job 1 is Failed"),
        ("kill -9 $$\n", 137, "Job 1 is Failed"),
        ("rm -rf /\n", 126, "Job 1 is Invalid"),
    ],
)
async def test_wait_exits_with_the_status_of_the_job(
    jo: Jo, script: str, code: int, text: str
) -> None:
    write(jo, script)
    run = await jo(*SUBMIT, "run.sh", "--wait")
    assert run.code == code, run.err
    assert text in run.err
    assert (await jo("wait", "1")).code == code


async def test_submit_of_a_failing_job_downloads_its_output_and_keeps_its_status(jo: Jo) -> None:
    write(jo, "echo half > half.txt; exit 3\n")
    run = await jo(*SUBMIT, "run.sh", "-o", "out.zip", "--json")
    assert (run.code, run.json["exit_code"]) == (3, 3)
    assert zipfile.ZipFile(jo.folder / "out.zip").read("half.txt") == b"half\n"


async def test_follow_prints_each_stream_of_a_running_job_to_its_own(jo: Jo) -> None:
    write(jo, "echo first; mkfifo go; read _ < go; echo problem >&2; echo läst\n")
    process = await jo.start(*SUBMIT, "run.sh", "--follow")
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), TIMEOUT_S) == b"first\n"
    running = await jo("logs", "1")
    assert (running.code, running.out) == (0, "first\n")
    process.send_signal(signal.SIGINT)
    await asyncio.wait_for(process.communicate(), TIMEOUT_S)
    assert process.returncode == 130
    await jo("cancel", "1")
    write(jo, "echo problem >&2; echo läst; exit 5\n")
    run = await jo(*SUBMIT, "run.sh", "--follow")
    assert (run.code, run.out) == (5, "läst\n")
    assert "problem\n" in run.err
    assert (await jo("logs", "2", "--stderr")).out == "problem\n"


@pytest.mark.parametrize("follow", [(), ("--follow",)])
async def test_logs_print_both_streams_unless_one_is_chosen(
    jo: Jo, follow: tuple[str, ...]
) -> None:
    write(jo, "echo problem >&2; echo läst\n")
    await jo(*SUBMIT, "run.sh", "--wait")
    both = await jo("logs", "1", *follow)
    assert (both.code, both.out, both.err) == (0, "läst\n", "problem\n")
    for stream, text in (("stdout", "läst\n"), ("stderr", "problem\n")):
        one = await jo("logs", "1", "--stream", stream, *follow)
        assert (one.code, one.out, one.err) == (0, text, "")
        shown = await jo("logs", "1", "--stream", stream, "--json", *follow)
        assert shown.json == {"stream": stream, "text": text}
    assert (await jo("logs", "1", "--offset", "1", "--stream", "stderr", *follow)).out == "roblem\n"
    unclear = await jo("logs", "1", "--offset", "1", *follow)
    assert (unclear.code, "--offset needs --stream" in unclear.err) == (2, True)


async def test_followed_output_of_a_job_that_is_run_again_marks_the_next_attempt(
    start_client: StartClient, start_server: StartServer, tmp_path: Path
) -> None:
    client = await start_client()
    jo = Jo((await start_server(client)).url, tmp_path)
    write(jo, f"echo begun; cat {tmp_path}/go; echo ended\n")
    os.mkfifo(tmp_path / "go")
    await jo(*SUBMIT, "run.sh")
    process = await jo.start("logs", "-f", "1")
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), TIMEOUT_S) == b"begun\n"
    await client.end(signal.SIGKILL)
    await client.start()
    assert await asyncio.wait_for(process.stdout.readline(), TIMEOUT_S) == b"begun\n"
    await asyncio.to_thread((tmp_path / "go").write_text, "")
    out, err = await asyncio.wait_for(process.communicate(), TIMEOUT_S)
    assert (process.returncode, out) == (0, b"ended\n")
    # While the client is away, jo may also report that it retries, once for each stream.
    rerun = b"Job 1 is run again: the output of attempt 2 follows"
    assert err.splitlines().count(rerun) == 1


async def test_running_job_is_not_downloaded_times_out_and_is_cancelled(jo: Jo) -> None:
    write(jo, "echo begun > begun.txt; sleep 300\n")
    await jo(*SUBMIT, "run.sh")
    early = await jo("download", "1")
    assert early.code == 65
    assert "jo wait 1 -o OUT" in early.err
    timed_out = await jo("wait", "1", "--timeout", "0.1")
    assert (timed_out.code, "has not ended after 0.1 s" in timed_out.err) == (124, True)
    assert (await jo("cancel", "1")).out == "Job 1 is Killed\n"
    assert (await jo("cancel", "1")).code == 1
    assert (await jo("wait", "1")).code == 137


async def test_cancel_of_several_jobs_tries_all_and_reports_each(jo: Jo) -> None:
    write(jo, "true\n")
    await jo(*SUBMIT, "run.sh", "--wait")
    write(jo, "sleep 300\n")
    for _ in range(4):
        await jo(*SUBMIT, "run.sh")
    run = await jo("cancel", "1", "2", "99", "3", "2")
    assert run.out == "Job 2 is Killed\nJob 3 is Killed\n"
    assert run.err == (
        "jo: Job 1 has already ended: it is Completed\n"
        "jo: Job 99 not found; list jobs to see which there are\n"
    )
    assert run.code == 1
    shown = await jo("cancel", "99", "4", "1", "5", "--json")
    assert shown.code == 66
    answers = [json.loads(line) for line in shown.out.splitlines()]
    assert [answer["id"] for answer in answers] == [99, 4, 1, 5]
    assert [answer.get("error") for answer in answers] == [
        "JobNotFound",
        None,
        "AlreadyEnded",
        None,
    ]


async def test_list_is_narrowed_by_the_environment_and_says_so(jo: Jo) -> None:
    write(jo, "true\n")
    for user in ("1", "2"):
        await jo("submit", "--service", "example", "--user", user, "--tag", f"t{user}", "run.sh")
        await jo("wait", user)
    jo.env |= {"JO_USER": "1", "JO_SERVICE": "example"}
    narrowed = await jo("list")
    header, *rows = narrowed.out.splitlines()
    assert "TAG" in header.split()
    assert [(row.split()[0], row.split()[-1]) for row in rows] == [("1", "t1")]
    assert narrowed.err == (
        "Only jobs of user 1 (JO_USER) and of service example (JO_SERVICE). "
        "For others: --all-users, --all-services\n"
    )
    everything = await jo("list", "--all-users", "--all-services")
    assert [row.split()[0] for row in everything.out.splitlines()[1:]] == ["2", "1"]
    assert everything.err == ""
    assert (await jo("list", "--user", "2", "--service", "example")).err == ""
    assert len((await jo("list", "--json")).json) == 1
    jo.env["JO_SERVICE"] = "nosuch"
    assert (await jo("list", "--all-users")).code == 65
    twice = await jo("list", "--user", "1", "--all-users")
    assert (twice.code, "--user and --all-users" in twice.err) == (2, True)


async def test_unknown_service_is_answered_with_those_that_exist(jo: Jo) -> None:
    write(jo, "true\n")
    expected = "jo: Invalid service 'nosuch'; the services of this server: example\n"
    for args in (
        ("submit", "--user", "1", "run.sh", "--service", "nosuch"),
        ("list", "--service", "nosuch"),
        ("list", "--service", "nosuch", "--watch", "--json"),
    ):
        run = await jo(*args)
        assert (run.code, run.err) == (65, expected)
    assert (await jo("list", "--service", "EXAMPLE")).out == "No jobs\n"


async def test_list_filters_jobs_and_prints_json_or_a_table(jo: Jo) -> None:
    write(jo, "true\n")
    for user, tag in (("1", "a"), ("1", "b"), ("2", "a")):
        await jo("submit", "--service", "example", "--user", user, "--tag", tag, "run.sh", "--wait")
    listed = (await jo("list", "--json", "--user", "1", "--status", "completed")).json
    assert [job["id"] for job in listed] == [2, 1]
    for states in (
        ("--status", "COMPLETED,failed"),
        ("--status", "failed", "--status", "Completed"),
    ):
        assert len((await jo("list", "--json", *states)).json) == 3
    assert (await jo("list", "--json", "--status", "failed,killed")).json == []
    odd = await jo("list", "--status", "completed,done")
    assert (odd.code, "'done' is not a state; the states are: " in odd.err) == (2, True)
    assert [job["id"] for job in (await jo("list", "--json", "--tag", "a", "-n", "1")).json] == [3]
    table = (await jo("list")).out.splitlines()
    assert table[0].split()[:4] == ["ID", "USER", "SERVICE", "STATUS"]
    assert [line.split()[0] for line in table[1:]] == ["3", "2", "1"]
    assert (await jo("list", "--user", "9")).out == "No jobs\n"


async def test_watched_list_shows_each_change_of_the_jobs_that_match(jo: Jo) -> None:
    write(jo, "true\n")
    watching = await jo.start("list", "--watch", "--json", "--user", "1", "--tag", "mine")
    assert watching.stdout is not None
    seen: list[dict[str, Any]] = []
    while not seen:  # changes before the stream is open are not shown
        await jo(*SUBMIT, "--tag", "other", "run.sh", "--wait")
        await jo(*SUBMIT, "--tag", "mine", "run.sh", "--wait")
        with contextlib.suppress(TimeoutError):
            seen.append(json.loads(await asyncio.wait_for(watching.stdout.readline(), 1)))
    while seen[-1]["status"] != "Completed":
        seen.append(json.loads(await asyncio.wait_for(watching.stdout.readline(), TIMEOUT_S)))
    assert {(job["id"], job["tag"]) for job in seen} == {(seen[0]["id"], "mine")}
    watching.send_signal(signal.SIGINT)
    _, err = await asyncio.wait_for(watching.communicate(), TIMEOUT_S)
    assert (watching.returncode, b"Traceback" in err) == (130, False)


async def test_watched_list_is_requested_after_its_stream_is_open(jo: Jo) -> None:
    asked: list[str] = []
    listed = asyncio.Event()

    async def events(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await listed.wait()
        return response

    async def jobs(request: web.Request) -> web.Response:
        asked.append(request.path)
        listed.set()
        return web.json_response({"id": 0, "status": "Failed", "message": "enough"}, status=400)

    app = web.Application()
    app.add_routes([web.get("/events", events), web.get("/jobs", jobs)])
    async with TestServer(app) as server:
        run = await jo("list", "--watch", "--url", str(server.make_url("")))
    assert asked == ["/events", "/jobs"]
    assert (run.code, run.err) == (65, "jo: enough\n")


async def test_watched_list_in_a_terminal_is_a_table_that_follows_the_jobs(jo: Jo) -> None:
    write(jo, "true\n")
    ours, theirs = pty.openpty()
    watching = await jo.start("list", "--watch", stdout=theirs)
    os.close(theirs)
    shown = asyncio.create_task(asyncio.to_thread(_read_until, ours, b"Completed"))
    while not shown.done():  # changes before the stream is open are not shown
        await jo(*SUBMIT, "run.sh", "--wait")
        await asyncio.wait({shown}, timeout=1)
    assert b"STATUS" in await shown
    watching.send_signal(signal.SIGINT)
    await asyncio.to_thread(_read_all, ours)
    assert await asyncio.wait_for(watching.wait(), TIMEOUT_S) == 130


def _read_until(terminal: int, text: bytes) -> bytes:
    """Return the output of a terminal up to ``text``."""
    found = b""
    while text not in found:
        found += os.read(terminal, 1 << 16)
    return found


async def test_services_and_clients_are_listed(jo: Jo) -> None:
    assert (await jo("services", "--json")).json[0]["name"] == "example"
    assert "example" in (await jo("services")).out
    [client] = (await jo("clients", "--json")).json
    assert client["url"].endswith("/submit")
    assert (
        client["url"].removeprefix("http://").removesuffix("/submit") in (await jo("clients")).out
    )
    assert (await jo("top")).code == 65


async def test_unreachable_client_is_listed_without_its_last_report(
    start_client: StartClient, start_server: StartServer, tmp_path: Path
) -> None:
    client = await start_client()
    server = await start_server(client)

    async with AsyncClient(server.url) as api:

        async def reported() -> bool:
            return (await api.clients())[0].slots == 10

        async def gone() -> bool:
            return (await api.clients())[0].state == "unreachable"

        await eventually(reported)
        await client.end(signal.SIGKILL)
        await eventually(gone)
        [shown] = await api.clients()
    assert (shown.slots, shown.running, shown.waiting, shown.cpu, shown.memory) == (None,) * 5
    row = (await Jo(server.url, tmp_path)("clients")).out.splitlines()[1]
    assert row.split()[1:6] == ["unreachable", "-", "-", "-", "-"]


@pytest.mark.parametrize(
    ("args", "code", "text"),
    [
        (("status", "77"), 66, "jo: Job 77 not found"),
        (("submit", "--service", "no", "--user", "1", "run.sh"), 65, "jo: Invalid service"),
        (("submit", "--service", "example", "run.sh"), 2, "Missing option '--user'"),
        (("submit", "--service", "example", "--user", "1", "gone"), 2, "'gone' does not exist"),
        (("list", "--url", "http://127.0.0.1:9"), 69, "--url or JO_URL"),
        (
            ("status", "abc"),
            2,
            "'abc' is not a job id: it must be a whole number, 0 or more.",
        ),
        (
            ("list", "-n", "0"),
            2,
            "'0' is not a number of jobs: it must be a whole number, 1 or more.",
        ),
        (
            ("wait", "1", "--timeout", "nan"),
            2,
            "'nan' is not a time: it must be a number of seconds",
        ),
        (
            ("submit", "--service", "example", "--user", "1", "run.sh", "--priority", "101"),
            2,
            "'101' is not a priority: it must be a whole number from -100 to 100.",
        ),
        (("list", "--url", "localhost"), 65, "must be a URL such as http://localhost:5000"),
        (("nonsense",), 2, "No such command"),
    ],
)
async def test_failure_has_its_exit_status_and_message(
    jo: Jo, args: tuple[str, ...], code: int, text: str
) -> None:
    write(jo, "true\n")
    run = await jo(*args)
    assert run.code == code
    assert text in run.err
    assert run.out == ""


async def test_common_options_before_the_command_override_the_environment(
    jo: Jo,
) -> None:
    url = jo.env["JO_URL"]
    jo.env |= {"JO_URL": "http://127.0.0.1:9", "JO_TOKEN": "t"}
    assert (await jo("--url", url, "--token", "u", "--json", "list")).json == []
    assert (await jo("--url", "http://127.0.0.1:9", "list", "--url", url)).out == "No jobs\n"
    assert (await jo("--url", "localhost", "list")).code == 65
    jo.env["JO_URL"] = url
    assert (await jo("--json", "list")).json == []


async def test_interrupted_wait_says_that_the_job_continues_and_how_to_cancel_it(jo: Jo) -> None:
    write(jo, "sleep 300\n")
    process = await jo.start(*SUBMIT, "run.sh", "--wait")
    assert process.stderr is not None
    assert await asyncio.wait_for(process.stderr.readline(), TIMEOUT_S) == b"Submitted as job 1\n"
    process.send_signal(signal.SIGINT)
    _, err = await asyncio.wait_for(process.communicate(), TIMEOUT_S)
    assert process.returncode == 130
    assert b"Interrupted. Job 1 continues. Cancel it: jo cancel 1." in err
    assert b"Traceback" not in err
    assert (await jo("cancel", "1")).code == 0


async def test_interrupted_upload_leaves_no_job(jo: Jo) -> None:
    connected, gone = asyncio.Event(), asyncio.Event()

    async def read_little(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        connected.set()
        await gone.wait()
        writer.transport.abort()

    write(jo, "true\n")
    with (jo.folder / "large").open("wb") as large:
        large.truncate(50 << 20)
    mute = await asyncio.start_server(read_little, "127.0.0.1", 0)
    url = "http://{}:{}".format(*mute.sockets[0].getsockname())
    process = await jo.start(*SUBMIT, "--url", url, "run.sh", "large")
    await asyncio.wait_for(connected.wait(), TIMEOUT_S)
    process.send_signal(signal.SIGINT)
    _, err = await asyncio.wait_for(process.communicate(), TIMEOUT_S)
    assert (process.returncode, err) == (
        130,
        b"\nInterrupted. The upload was not finished: no job was created\n",
    )
    gone.set()
    mute.close()
    await mute.wait_closed()


async def test_terminal_gets_a_progress_bar(jo: Jo) -> None:
    write(jo, "true\n")
    with (jo.folder / "large").open("wb") as large:
        large.truncate(20 << 20)
    ours, theirs = pty.openpty()
    process = await jo.start(*SUBMIT, "run.sh", "large", "-o", "out", stderr=theirs)
    os.close(theirs)
    shown = await asyncio.to_thread(_read_all, ours)
    await process.wait()
    assert process.returncode == 0
    assert "Uploading" in shown
    assert "MB/s" in shown
    assert "Job 1 is Completed" in shown


def _read_all(terminal: int) -> str:
    """Return the output of a terminal until its last writer has closed it."""
    found = b""
    try:
        while block := os.read(terminal, 1 << 16):
            found += block
    except OSError:  # EIO: how Linux reports it
        pass
    finally:
        os.close(terminal)
    return found.decode(errors="replace")


async def test_shell_completion_lists_the_commands(jo: Jo) -> None:
    jo.env |= {"_JO_COMPLETE": "bash_complete", "COMP_WORDS": "jo sub", "COMP_CWORD": "1"}
    assert (await jo()).out == "plain,submit\n"


async def test_q_ends_the_live_display_and_restores_the_terminal(jo: Jo) -> None:
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    process = await jo.start("top", stdin=theirs, stdout=theirs, stderr=theirs)
    try:
        await asyncio.to_thread(_read_until, ours, b"q ends")
        os.write(ours, b"xq")
        assert await asyncio.wait_for(process.wait(), TIMEOUT_S) == 0
        assert termios.tcgetattr(theirs) == before
    finally:
        os.close(theirs)
        os.close(ours)


async def test_completion_prints_a_script_for_each_shell(jo: Jo) -> None:
    for shell in ("bash", "zsh", "fish"):
        run = await jo("completion", shell)
        assert (run.code, f"_JO_COMPLETE={shell}_complete" in run.out) == (0, True)
    assert (await jo("completion", "csh")).code == 2


async def test_completion_offers_services_and_jobs_of_the_server(jo: Jo) -> None:
    write(jo, "true\n")
    await jo(*SUBMIT, "run.sh", "--wait")
    write(jo, "sleep 300\n")
    await jo(*SUBMIT, "run.sh")

    async def completed(*words: str) -> list[str]:
        jo.env |= {
            "_JO_COMPLETE": "bash_complete",
            "COMP_WORDS": " ".join(("jo", *words)),
            "COMP_CWORD": str(len(words)),
        }
        run = await jo()
        assert (run.code, run.err) == (0, "")
        return [line.partition(",")[2] for line in run.out.split()]

    assert await completed("submit", "--service", "ex") == ["example"]
    assert await completed("list", "--service", "no") == []
    assert await completed("status", "1") == ["1"]
    assert await completed("logs", "") == ["2", "1"]
    assert await completed("cancel", "") == ["2"]
    assert await completed("cancel", "2", "") == []
    jo.env["JO_URL"] = "http://127.0.0.1:9"
    assert await completed("cancel", "") == []
    assert await completed("submit", "--service", "ex") == []


async def test_completion_does_not_wait_for_a_silent_server(jo: Jo) -> None:
    ended = asyncio.Event()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.transport.abort()
        ended.set()

    mute = await asyncio.start_server(accept, "127.0.0.1", 0)
    async with mute:
        jo.env |= {
            "JO_URL": "http://{}:{}".format(*mute.sockets[0].getsockname()),
            "_JO_COMPLETE": "bash_complete",
            "COMP_WORDS": "jo cancel 1",
            "COMP_CWORD": "2",
        }
        run = await asyncio.wait_for(jo(), TIMEOUT_S)
        assert (run.code, run.out.strip(), run.err) == (0, "", "")
        await asyncio.wait_for(ended.wait(), TIMEOUT_S)
