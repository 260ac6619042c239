"""Start of ``jo``: the modules that it loads, interrupts, missing dependencies."""

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from job_orchestrator.cli.main import LazyCommand, jo

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
    """Return the modules that are loaded when ``jo`` with ``arguments`` ends."""
    run = subprocess.run(
        [sys.executable, "-c", RUN, *arguments], capture_output=True, text=True, check=False
    )
    *_, last = run.stderr.splitlines()
    assert last.startswith("LOADED "), run.stderr
    return set(last.split())


@pytest.mark.parametrize("arguments", [("--version",), ("--help",), ("-h",), ("nonsense",)])
def test_call_without_a_server_loads_no_http_client(arguments: tuple[str]) -> None:
    assert not loaded_by(*arguments) & SLOW


@pytest.mark.parametrize(
    "arguments", [("list", "--json"), ("services", "--json"), ("cancel", "1"), ("wait", "1")]
)
def test_call_without_tables_does_not_load_rich(arguments: tuple[str, ...]) -> None:
    loaded = loaded_by(*arguments, "--url", "http://127.0.0.1:9")
    assert "aiohttp" in loaded
    assert "rich" not in loaded


@pytest.mark.parametrize("name", sorted(jo.commands))
def test_summary_of_a_command_equals_the_first_sentence_of_its_help(name: str) -> None:
    lazy = jo.commands[name]
    assert isinstance(lazy, LazyCommand)
    command = lazy.load()
    assert isinstance(command, click.Command)
    assert command.name == name
    assert lazy.get_short_help_str(200) == command.get_short_help_str(200)


@pytest.mark.parametrize("loading", ["click", "aiohttp", "msgspec"])
def test_interrupt_while_modules_load_is_silent_and_exits_with_130(
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


def test_ignored_interrupt_stays_ignored() -> None:
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "from job_orchestrator.cli import interrupts\n"
        "interrupts.exit_on_interrupt(); interrupts.raise_on_interrupt()\n"
        "assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN"
    )
    ignoring = subprocess.run([sys.executable, "-c", program], check=False)
    assert ignoring.returncode == 0


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_missing_dependency_is_reported_in_one_line_that_names_the_extra(missing: str) -> None:
    program = (
        f"import sys; sys.modules[{missing!r}] = None; sys.argv = ['jo', 'top']\n"
        "from job_orchestrator.cli.__main__ import main; main()"
    )

    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )

    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr == (
        f"jo needs {missing}, which is not installed. Install it with: "
        "pip install 'job-orchestrator-common[cli]'\n"
    )
