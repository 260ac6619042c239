"""The library and jo about a job in every state: the second table in docs/job-lifecycle.md."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from fake_client import FakeClient, StartClient, answering
from jo_command import Jo
from job_orchestrator.sdk import ApiError, AsyncClient, Client, JobStatus
from job_orchestrator.server.jobs import terminate as termination
from job_states import STATES
from running_server import Server, StartServer

PAGE = Path(__file__).parents[2] / "docs" / "job-lifecycle.md"
CALLS = ("download", "download --partial", "logs", "files", "cancel")
"""In this order: the last one changes the state."""

PENDING = "pending"

Answers = Mapping[str, Mapping[str, str]]
Ask = Callable[[Server, int, Path], Awaitable[Mapping[str, str]]]
"""Makes each call once, and returns what became of it, by call."""


def documented() -> Answers:
    """Return the answers to the calls, by state and call."""
    section = PAGE.read_text("utf-8").partition("### The library and jo")[2].partition("\n## ")[0]
    header, _, *rows = re.findall(r"^\| (.+) \|$", section, re.MULTILINE)
    assert tuple(re.findall(r"`(.+?)`", header)) == CALLS
    cells = [row.split(" | ") for row in rows]
    return {state: dict(zip(CALLS, found, strict=True)) for state, *found in cells}


def of_library(cell: str) -> str:
    """Return the part of a cell about the library: an error, ``pending`` or nothing."""
    return cell.rpartition(",")[0].strip("`")


def of_command(cell: str) -> str:
    """Return the part of a cell about jo: an exit status."""
    return cell.rpartition(",")[2].strip()


async def by_async_library(server: Server, job: int, folder: Path) -> Mapping[str, str]:
    found = {}
    async with AsyncClient(str(server.url), patience_s=0) as client:

        async def logs() -> list[bytes]:
            return [block async for block in client.logs(job)]

        calls: dict[str, Callable[[], Awaitable[Any]]] = {
            "download": lambda: client.download(job, folder / "a.zip"),
            "download --partial": lambda: client.download(job, folder / "b.zip", partial=True),
            "logs": logs,
            "files": lambda: client.files(job),
            "cancel": lambda: client.cancel(job),
        }
        for name in CALLS:
            try:
                answer = await calls[name]()
            except ApiError as error:
                found[name] = type(error).__name__
            else:
                is_pending = name == "cancel" and answer.status is not JobStatus.KILLED
                found[name] = PENDING if is_pending else ""
        assert (await client.job(job)).id == job
    return found


def _by_library(url: str, job: int, folder: Path) -> Mapping[str, str]:
    found = {}
    with Client(url, patience_s=0) as client:
        calls: dict[str, Callable[[], Any]] = {
            "download": lambda: client.download(job, folder / "a.zip"),
            "download --partial": lambda: client.download(job, folder / "b.zip", partial=True),
            "logs": lambda: list(client.logs(job)),
            "files": lambda: client.files(job),
            "cancel": lambda: client.cancel(job),
        }
        for name in CALLS:
            try:
                answer = calls[name]()
            except ApiError as error:
                found[name] = type(error).__name__
            else:
                is_pending = name == "cancel" and answer.status is not JobStatus.KILLED
                found[name] = PENDING if is_pending else ""
        assert client.job(job).id == job
    return found


async def by_library(server: Server, job: int, folder: Path) -> Mapping[str, str]:
    return await asyncio.to_thread(_by_library, str(server.url), job, folder)


async def by_command(server: Server, job: int, folder: Path) -> Mapping[str, str]:
    jo = Jo(str(server.url), folder)
    found = {}
    for name in CALLS:
        command, *options = name.split()
        if command == "download":
            options += ["-o", f"{len(options)}.zip"]
        run = await jo(command, str(job), *options)
        found[name] = str(run.code)
        assert run.code == 0 or run.err or name == "cancel", run
    shown = await jo("status", str(job), "--json")
    assert (shown.code, shown.json["id"]) == (0, job)
    return found


@pytest.fixture
async def server(
    client: FakeClient, start_client: StartClient, start_server: StartServer
) -> Server:
    server = await start_server(await start_client(client), SERVICE_EXAMPLE_RUNS_PER_USER="1")
    await client.connected.wait()
    return server


def test_every_state_is_documented() -> None:
    assert list(documented()) == list(STATES)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("ask", [by_async_library, by_library, by_command])
async def test_calls_are_answered_as_documented(
    server: Server,
    client: FakeClient,
    state: str,
    ask: Ask,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(termination, "TERMINATE_TIMEOUT_S", 0.05)
    client.instead["logs"] = answering(200, "one\n", "text/plain")
    job = await STATES[state](server, client)
    folder = tmp_path / "user"
    folder.mkdir()
    found = await ask(server, job, folder)
    part = of_command if ask is by_command else of_library
    assert found == {name: part(cell) for name, cell in documented()[state].items()}
