"""``make up``: starts and stops both services in an order that costs no job an attempt."""

import asyncio
import contextlib
import os
import signal
import socket
import sqlite3
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import yaml

from harness import END_TIMEOUT_S, START_TIMEOUT_S, Portal

ROOT = Path(__file__).parents[1]
UP = ROOT / "examples" / "up.py"


def free_ports(count: int) -> list[str]:
    """Return ports that are free at the moment."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [str(each.getsockname()[1]) for each in sockets]


class Up:
    """``make up`` in ``folder``, as run in a terminal."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = ""
        self.port, self.client_port = free_ports(2)
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start ``make up`` and wait until the client is connected."""
        inherited = {k: v for k, v in os.environ.items() if k.startswith("COV")}
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            UP,
            cwd=self.folder,
            env={
                "PATH": os.environ["PATH"],
                "PORT": self.port,
                "CLIENT_PORT": self.client_port,
                "KILL_GRACE": "1s",
                **inherited,
            },
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        assert self._process.stdout is not None
        async with asyncio.timeout(START_TIMEOUT_S):
            while "is connected" not in self.log:
                line = await self._process.stdout.readline()
                assert line, self.log
                self.log += line.decode()

    async def end(self, number: int | None = signal.SIGINT) -> int:
        """Send a signal to the parent process only. Return its exit status when all have ended.

        Without a signal, wait for a process that ends by itself: Popen.send_signal would reap it,
        and asyncio would report the status 255.
        """
        if self._process is None:
            return 0
        process, self._process = self._process, None
        if number is not None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)
        assert process.stdout is not None
        # The services hold the pipe too, so it ends when all of them have exited.
        rest = await asyncio.wait_for(process.stdout.read(), END_TIMEOUT_S)
        self.log += rest.decode()
        return await process.wait()


@pytest.fixture
async def up(tmp_path: Path) -> AsyncIterator[Up]:
    """Both services, running under ``make up``."""
    up = Up(tmp_path)
    try:
        await up.start()
        yield up
    finally:
        await up.end(signal.SIGTERM)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_running_job_is_given_back_before_the_server_ends_and_loses_no_attempt(
    up: Up, session: aiohttp.ClientSession, number: int
) -> None:
    assert "can't be reached" not in up.log, up.log
    portal = Portal(f"http://127.0.0.1:{up.port}", session)
    job = await portal.submit("sleep 300\n")
    await portal.until(job, "Running")
    assert await up.end(number) == 0
    with contextlib.closing(sqlite3.connect(up.folder / "data/server/db.sqlite")) as database:
        row = database.execute("SELECT status, failures FROM jobs").fetchone()
    assert row == ("Queued", 0), up.log


async def test_client_that_cannot_start_ends_all_and_is_not_hidden_by_warnings(
    tmp_path: Path,
) -> None:
    up = Up(tmp_path)
    up.client_port = "no-port"
    with pytest.raises(AssertionError, match="PORT is 'no-port'"):
        await up.start()
    assert await up.end(None) == 1
    assert "can't be reached" not in up.log


def test_composed_client_is_ended_before_the_server_and_has_time_to_give_its_jobs_back() -> None:
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    # Compose stops a service before the services that it depends on.
    assert services["client"]["depends_on"] == ["server"]
    assert "depends_on" not in services["server"]
    assert {service["stop_grace_period"] for service in services.values()} == {"30s"}
