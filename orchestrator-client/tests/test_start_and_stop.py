"""The command jo-client as a process: start, refusal to start, and end."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

SECONDS = "4714.1"


def command(*flags: str) -> list[str]:
    return [sys.executable, "-m", "job_orchestrator.client", "--host", "127.0.0.1", *flags]


@pytest.fixture
def process(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """A jo-client on a free port."""
    with subprocess.Popen(
        command("--port", "0", "--slots", "2", "--kill-grace", "0.3s"),
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "DATA_PATH": str(tmp_path / "data")},
    ) as process:
        try:
            yield process
        finally:
            process.terminate()  # TERM first, so that it can end its scripts
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def url_of(process: "subprocess.Popen[str]") -> str:
    assert process.stderr is not None
    for line in process.stderr:
        found = re.search(r"jo-client \S+ listening on (\S+)$", line)
        if found:
            return found[1]
    raise AssertionError("jo-client ended")


def sleeping() -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cmdline() == ["sleep", SECONDS] and process.status() != "zombie":
                found.append(process)
    return found


def test_trap_22_sigterm_ends_the_client_and_all_that_it_runs(
    process: "subprocess.Popen[str]",
) -> None:
    url = url_of(process)
    script = (
        "trap '' TERM\n"
        f"(env -i PATH=$PATH setsid sleep {SECONDS} &)\n"
        f"setsid nohup sleep {SECONDS} &\n"
        f"sleep {SECONDS}\n"
    )
    form = (
        '--b\r\nContent-Disposition: form-data; name="f"; filename="run.sh"\r\n\r\n'
        f"{script}\r\n--b--\r\n"
    )
    request = urllib.request.Request(  # noqa: S310
        f"{url}/submit",
        form.encode(),
        {"Content-Type": "multipart/form-data; boundary=b"},
    )
    with urllib.request.urlopen(request, timeout=120) as response:  # noqa: S310
        assert json.load(response)["status"] == "Prepared"
    while len(sleeping()) < 3:
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert sleeping() == []
    assert process.stderr is not None
    assert "Traceback" not in process.stderr.read()


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--slots", "none"], "jo-client: --slots is 'none'; it must be a whole number"),
        (["--data-path", "/proc/x"], "jo-client: DATA_PATH is '/proc/x', which can't be written"),
        (["--host", "nowhere.invalid"], "jo-client: HOST is 'nowhere.invalid'; it must be"),
    ],
)
def test_bad_setting_stops_the_start_with_one_line_and_status_2(
    tmp_path: Path, flags: list[str], line: str
) -> None:
    ended = subprocess.run(
        command("--port", "0", *flags), cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 2
    assert ended.stdout == ""
    (printed,) = ended.stderr.strip().splitlines()
    assert printed.startswith(line)


def test_second_client_on_the_same_port_or_data_is_refused_with_one_line(
    process: "subprocess.Popen[str]", tmp_path: Path
) -> None:
    port = url_of(process).rpartition(":")[2]
    for flags, message in (
        (["--port", port, "--data-path", "other"], f"Can't listen on 127.0.0.1 port {port}"),
        (["--port", "0", "--data-path", "data"], "Another jo-client uses DATA_PATH"),
    ):
        ended = subprocess.run(
            command(*flags), cwd=tmp_path, capture_output=True, text=True, timeout=120
        )
        assert ended.returncode == 2
        assert len(ended.stderr.strip().splitlines()) == 1
        assert message in ended.stderr
