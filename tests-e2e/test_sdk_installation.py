"""A portal that installs the client library gets an HTTP client and a decoder, and no service."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# aiosignal needs typing-extensions up to Python 3.12.
LIBRARY = {
    "aiohappyeyeballs",
    "aiohttp",
    "aiosignal",
    "attrs",
    "frozenlist",
    "idna",
    "job-orchestrator-common",
    "msgspec",
    "multidict",
    "propcache",
    "yarl",
} | ({"typing-extensions"} if sys.version_info < (3, 13) else set())
COMMAND = {"click", "markdown-it-py", "mdurl", "pygments", "rich"}
TOOLS = {"pip", "setuptools"}

Install = Callable[[str], Path]

USE = """
from job_orchestrator.sdk import AsyncClient, Client, JobStatus

with Client("http://127.0.0.1:9", patience_s=0) as client:
    print(client.url, client.answered, JobStatus.COMPLETED.has_ended)
"""


@pytest.fixture
def install(tmp_path: Path) -> Install:
    """Install the distribution with the given extra into a fresh environment."""

    def install(extra: str) -> Path:
        python = tmp_path / "venv" / "bin" / "python"
        subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True, timeout=240)
        distribution = f"{ROOT / 'orchestrator-common'}{extra}"
        subprocess.run(
            [python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", distribution],
            check=True,
            timeout=240,
        )
        return python

    return install


def packages(python: Path) -> set[str]:
    """Return the names of the packages in the environment of ``python``, without its tools."""
    listed = subprocess.run(
        [python, "-m", "pip", "list", "--format", "json", "--disable-pip-version-check"],
        check=True,
        capture_output=True,
    )
    found = {package["name"].lower().replace("_", "-") for package in json.loads(listed.stdout)}
    return found - TOOLS


@pytest.mark.slow
def test_library_installs_only_what_it_needs_and_says_how_to_get_the_command(
    install: Install,
) -> None:
    python = install("")

    assert packages(python) == LIBRARY
    used = subprocess.run([python, "-c", USE], check=True, capture_output=True, text=True)
    assert used.stdout == "http://127.0.0.1:9 False True\n"
    command = subprocess.run([python.parent / "jo"], check=False, capture_output=True, text=True)
    assert (command.returncode, command.stdout) == (1, "")
    assert command.stderr == (
        "jo needs click, which is not installed. Install it with: "
        "pip install 'job-orchestrator-common[cli]'\n"
    )


@pytest.mark.slow
def test_extra_cli_installs_what_the_command_needs(install: Install) -> None:
    python = install("[cli]")

    assert packages(python) == LIBRARY | COMMAND
    # Without a server each command loads its modules and fails at the connection.
    for arguments in (["list"], ["doctor"], ["submit", "--service", "s", "--user", "1", "x"]):
        (python.parent / "x").touch()
        run = subprocess.run(
            [python.parent / "jo", *arguments, "--url", "http://127.0.0.1:9"],
            cwd=python.parent,
            check=False,
            capture_output=True,
            text=True,
        )
        assert "not installed" not in run.stderr
        assert "Traceback" not in run.stderr
        assert run.returncode in (1, 65, 69), run.stderr
