"""Command jo with real services, as used by scripts and by people at a terminal."""

import asyncio
import json
import os
import pty
import signal
import zipfile
from pathlib import Path

import pytest

from harness import StartClient, StartServer
from jo_command import SUBMIT, TIMEOUT_S, Jo, read_all, write


async def test_submit_with_output_waits_and_unpacks_the_results(jo: Jo) -> None:
    write(jo, "tr a-z A-Z < in/x.txt > out.txt\n", "job/run.sh")
    (jo.folder / "job" / "in").mkdir()
    (jo.folder / "job" / "in" / "x.txt").write_text("abc")
    run = await jo(*SUBMIT, "job", "-o", "results", "--name", "my job", "--tag", "t")
    assert (run.code, run.out) == (0, "1\n"), run.err
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


async def test_submit_with_selected_results_gets_what_the_script_made(jo: Jo) -> None:
    write(jo, "mkdir out; echo 1 | tee out/a.csv out/b.txt in.csv\n", "job/run.sh")
    (jo.folder / "job" / "data.csv").write_text("abc")
    selection = ("--results", "new", "--outputs", "*.csv", "--outputs", "out/*.csv")
    run = await jo(*SUBMIT, "job", "-o", "results", *selection)
    assert run.code == 0, run.err
    found = (path for path in (jo.folder / "results").rglob("*") if path.is_file())
    names = {str(path.relative_to(jo.folder / "results")) for path in found}
    assert {name for name in names if not name.startswith(".")} == {"out/a.csv", "in.csv"}
    shown = await jo("status", "1")
    assert "made or changed by the script, *.csv, out/*.csv" in shown.out


async def test_files_and_cat_show_single_files_of_results(jo: Jo) -> None:
    write(jo, "mkdir out; printf '1\\0\\377' > out/x.bin; touch $'a\\033[31mb'\n")
    await jo(*SUBMIT, "run.sh", "--wait")
    listed = await jo("files", "1")
    lines = [line.split("  ")[-1] for line in listed.out.splitlines()]
    assert {"out/x.bin", "run.sh", r"'a\x1b[31mb'"} <= set(lines), listed.out
    assert {"path": "out/x.bin", "size": 3} in (await jo("files", "1", "--json")).json["files"]
    process = await jo.start("cat", "1", "out/x.bin")
    assert (await process.communicate())[0] == b"1\0\377"
    missing = await jo("cat", "1", "out/y.bin")
    assert missing.code == 66
    assert "no file 'out/y.bin'" in missing.err
    # A reader that has seen enough closes the pipe.
    shell = 'jo cat 1 run.sh | head -c 1; echo " ${PIPESTATUS[0]}"'
    ended = await asyncio.create_subprocess_exec(
        "bash", "-c", shell, cwd=jo.folder, env=jo.env, stdout=asyncio.subprocess.PIPE
    )
    assert (await ended.communicate())[0] == b"m 0\n"


async def test_submit_after_other_jobs_gets_their_results_and_fails_with_them(jo: Jo) -> None:
    write(jo, "echo 41 > number.txt\n")
    await jo(*SUBMIT, "run.sh")
    write(jo, "exit 3\n")
    await jo(*SUBMIT, "run.sh", "--after", "1")
    write(jo, "cat .inputs/1/number.txt; ls .inputs\n")
    both = await jo(*SUBMIT, "run.sh", "--after", "1", "--afterany", "2", "--follow")
    assert (both.code, both.out) == (0, "41\n1\n2\n"), both.err
    failed = await jo(*SUBMIT, "run.sh", "--after", "1,2", "--wait")
    assert failed.code == 1
    assert "Job 2, which had to complete before it, is Failed" in failed.err
    shown = (await jo("status", "4")).out
    assert "1, 2" in shown
    missing = await jo(*SUBMIT, "run.sh", "--after", "99")
    assert missing.code == 65
    assert "there is no job 99 of user 1" in missing.err
    wrong = await jo(*SUBMIT, "run.sh", "--afterany", "1,x")
    assert (wrong.code, "is not a list of job ids" in wrong.err) == (2, True)


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


async def test_submit_with_a_wait_gives_scripts_the_id_before_the_job_ends(jo: Jo) -> None:
    write(jo, f"read -r _ < {jo.folder}/go\n")
    os.mkfifo(jo.folder / "go")
    process = await jo.start(*SUBMIT, "run.sh", "--wait")
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), TIMEOUT_S) == b"1\n"
    await jo("cancel", "1")
    out, _ = await asyncio.wait_for(process.communicate(), TIMEOUT_S)
    assert (process.returncode, out) == (137, b"")


async def test_followed_submit_begins_its_messages_with_the_id(jo: Jo) -> None:
    write(jo, "echo mine\n")
    run = await jo(*SUBMIT, "run.sh", "--follow")
    assert (run.code, run.out) == (0, "mine\n")
    assert run.err.splitlines()[0] == "Submitted as job 1"


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [("", "it is empty"), ("out/[ab", "a '[' has no ']'"), ("../x", "empty or '..' component")],
)
async def test_unusable_pattern_of_results_is_refused_before_the_upload(
    jo: Jo, pattern: str, problem: str
) -> None:
    write(jo, "true\n")
    run = await jo(*SUBMIT, "run.sh", "--outputs", pattern, "--url", "http://127.0.0.1:1")
    assert run.code == 2
    assert problem in run.err


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


async def test_output_followed_while_the_job_waits_for_its_users_quota_is_printed_once(
    start_client: StartClient, start_server: StartServer, tmp_path: Path
) -> None:
    server = await start_server(await start_client(), SERVICE_EXAMPLE_RUNS_PER_USER="1")
    jo = Jo(server.url, tmp_path)
    os.mkfifo(tmp_path / "go")
    write(jo, f"read -r _ < {tmp_path}/go\n")
    await jo(*SUBMIT, "run.sh")
    write(jo, "echo one; echo two\n")
    process = await jo.start(*SUBMIT, "run.sh", "--follow")
    assert process.stderr is not None
    queued = await jo("status", "2", "--json")
    while queued.code != 0:
        queued = await jo("status", "2", "--json")
    assert queued.json["status"] == "Queued"
    await asyncio.to_thread((tmp_path / "go").write_text, "go\n")
    out, err = await asyncio.wait_for(process.communicate(), TIMEOUT_S)
    assert (process.returncode, out) == (0, b"one\ntwo\n")
    assert b"run again" not in err


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


async def test_job_whose_machine_is_gone_is_cancelled_later_and_has_no_output_now(
    start_client: StartClient, start_server: StartServer, tmp_path: Path
) -> None:
    client = await start_client()
    jo = Jo((await start_server(client)).url, tmp_path)
    write(jo, f"mkfifo {tmp_path}/begun; cat {tmp_path}/begun\n")
    await jo(*SUBMIT, "run.sh")
    while (await jo("status", "1", "--json")).json["status"] != "Running":
        pass
    await client.end(signal.SIGKILL)
    logs = await jo("logs", "1")
    assert (logs.code, logs.out) == (75, "")
    assert "can't be reached" in logs.err
    assert "retrying" not in logs.err
    cancelled = await jo("cancel", "1")
    assert cancelled.code == 75
    assert "It will be ended as soon as its machine can be reached" in cancelled.out
    assert "It will be ended" in (await jo("status", "1", "--json")).json["message"]
    await client.start()
    assert (await jo("wait", "1", "--timeout", "2m")).code == 137


async def test_queued_jobs_are_held_released_and_moved_while_the_service_is_paused(jo: Jo) -> None:
    write(jo, "echo done\n")
    assert (await jo("pause", "--service", "example")).out == "Paused: example\n"
    assert (await jo("pause", "--user", "9")).out == "Paused: example, user 9\n"
    for _ in range(2):
        assert (await jo(*SUBMIT, "run.sh")).code == 0
    assert "paused the service example" in (await jo("status", "2")).out
    expected = "Job 2 waits: An administrator has paused the service example."
    explained = (await jo("explain", "2")).out
    assert explained.splitlines()[0] == expected
    assert "jobs of user 1 in example" in explained
    assert (await jo("hold", "1", "2")).out == "Job 1 is on hold\nJob 2 is on hold\n"
    assert (await jo("priority", "2", "5")).out == "Job 2 has priority 5\n"
    assert (await jo("resume", "--service", "example")).out == "Paused: user 9\n"
    assert (await jo("status", "1", "--json")).json["held"]
    assert (await jo("release", "2", "1")).out == "Job 2 is released\nJob 1 is released\n"
    assert (await jo("wait", "1")).code == 0
    assert (await jo("explain", "1")).out == "Job 1 does not wait: it is Completed.\n"
    late = await jo("hold", "1")
    assert late.code != 0
    assert "not in the queue any more: it is Completed" in late.err
    assert (await jo("resume", "--user", "9")).out == "Nothing is paused\n"
    assert "Name a service" in (await jo("pause")).err


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
        "jo: Job 99 not found in the database; list jobs to see which there are\n"
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


@pytest.mark.parametrize(
    ("args", "code", "text"),
    [
        (("status", "77"), 66, "jo: Job 77 not found in the database"),
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
    shown = await asyncio.to_thread(read_all, ours)
    await process.wait()
    assert process.returncode == 0
    assert "Uploading" in shown
    assert "MB/s" in shown
    assert "Job 1 is Completed" in shown
