"""What ``jo`` loads, and when."""

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from job_orchestrator.cli.lazy_command import Later
from job_orchestrator.cli.main import jo

SLOW = {"aiohttp", "asyncio", "msgspec", "rich"}
RUN = """
import sys
from job_orchestrator.cli.__main__ import main
sys.argv = ["jo", *sys.argv[1:]]
try:
    main()
finally:
    print("LOADED", *sys.modules, file=sys.stderr)
"""


def loaded_by(*arguments: str) -> set[str]:
    """The modules that are loaded when ``jo`` with ``arguments`` ends."""
    run = subprocess.run(
        [sys.executable, "-c", RUN, *arguments], capture_output=True, text=True, check=False
    )
    *_, last = run.stderr.splitlines()
    assert last.startswith("LOADED "), run.stderr
    return set(last.split())


@pytest.mark.parametrize("arguments", [("--version",), ("--help",), ("-h",), ("nonsense",)])
def test_what_needs_no_server_loads_nothing_that_speaks_with_one(arguments: tuple[str]) -> None:
    assert not loaded_by(*arguments) & SLOW


@pytest.mark.parametrize(
    "arguments", [("list", "--json"), ("services", "--json"), ("cancel", "1"), ("wait", "1")]
)
def test_call_that_draws_nothing_loads_nothing_that_draws(arguments: tuple[str, ...]) -> None:
    loaded = loaded_by(*arguments, "--url", "http://127.0.0.1:9")
    assert "aiohttp" in loaded
    assert "rich" not in loaded


@pytest.mark.parametrize("name", sorted(jo.commands))
def test_summary_of_a_command_is_the_first_sentence_of_its_help(name: str) -> None:
    later = jo.commands[name]
    assert isinstance(later, Later)
    command = later.load()
    assert isinstance(command, click.Command)
    assert command.name == name
    assert later.get_short_help_str(200) == command.get_short_help_str(200)


@pytest.mark.parametrize("loading", ["click", "aiohttp", "msgspec"])
def test_interrupt_while_it_is_loaded_is_silent_and_ends_with_status_130(
    tmp_path: Path, loading: str
) -> None:
    interrupt = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n"
    (tmp_path / f"{loading}.py").write_text(interrupt)
    run = subprocess.run(
        [sys.executable, "-m", "job_orchestrator.cli", "list"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        check=False,
    )
    assert (run.returncode, run.stdout, run.stderr) == (130, b"", b"")


def test_interrupt_that_is_ignored_stays_ignored() -> None:
    ask = (
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "from job_orchestrator.cli import interrupts\n"
        "interrupts.leave_when_interrupted(); interrupts.raise_when_interrupted()\n"
        "assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN"
    )
    ignoring = subprocess.run([sys.executable, "-c", ask], check=False)
    assert ignoring.returncode == 0
