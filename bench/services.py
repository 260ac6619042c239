"""Runs both services as processes on free ports, with default settings."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

import psutil

BIN = ContextVar("BIN", default=Path(sys.executable).parent)
"""Folder of the programs to measure: those of this environment, or of a baseline."""

START_TIMEOUT_S = 60.0
END_TIMEOUT_S = 60.0
POLL_S = 0.02


class ServiceDied(Exception):
    """A service did not start, or exited unexpectedly; the message is the end of its log."""


@dataclass(frozen=True)
class Service:
    """A running service. ``folder`` contains all its files, including ``log``."""

    url: str
    folder: Path
    log: Path
    process: psutil.Process


@dataclass(frozen=True)
class Pair:
    """A server and its one client."""

    server: Service
    client: Service

    def by_name(self) -> dict[str, Service]:
        """Return both services by the name of their command."""
        return {"jo-server": self.server, "jo-client": self.client}


Wrap = Callable[[str], Sequence[str]]
"""Returns a command prefix for a service name, such as a tracer, which must exec the service."""


@asynccontextmanager
async def pair(
    folder: Path,
    *,
    slots: int = 10,
    server: Mapping[str, str] | None = None,
    client: Mapping[str, str] | None = None,
    wrap: Wrap = lambda name: (),
) -> AsyncIterator[Pair]:
    """Run a client with ``slots``, and a server whose service ``bench`` may use all of them.

    A single user may use all slots, too. ``server`` and ``client`` are additional settings.
    """
    client_settings = {"SLOTS": str(slots), **(client or {})}
    async with service("jo-client", folder / "client", client_settings, wrap) as the_client:
        server_settings = {
            "SERVICE_BENCH_UPLOAD_URL": f"{the_client.url}/submit",
            "SERVICE_BENCH_DOWNLOAD_URL": f"{the_client.url}/retrieve",
            "SERVICE_BENCH_RUNS_PER_USER": str(slots),
            "SERVICE_BENCH_MAX_RUNS": str(slots),
            **(server or {}),
        }
        async with service("jo-server", folder / "server", server_settings, wrap) as the_server:
            yield Pair(the_server, the_client)


@asynccontextmanager
async def service(
    name: str, folder: Path, settings: Mapping[str, str], wrap: Wrap = lambda name: ()
) -> AsyncIterator[Service]:
    """Run a service in ``folder`` until the context ends."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log"
    with log.open("wb") as stderr:
        started = await asyncio.create_subprocess_exec(
            *wrap(name),
            BIN.get() / name,
            cwd=folder,
            env={"PATH": os.environ["PATH"], "HOST": "127.0.0.1", "PORT": "0", **settings},
            stdin=asyncio.subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,
        )
    try:
        url = await _url(started, log)
        yield Service(url, folder, log, psutil.Process(started.pid))
    finally:
        await _end(started)


async def _url(started: asyncio.subprocess.Process, log: Path) -> str:
    async with asyncio.timeout(START_TIMEOUT_S):
        while (found := re.search(r"listening on (http://[\w.:]+)", log.read_text())) is None:
            if started.returncode is not None:
                raise ServiceDied(log.read_text()[-3000:])
            await asyncio.sleep(POLL_S)
    return found[1]


async def _end(started: asyncio.subprocess.Process) -> None:
    if started.returncode is not None:
        return
    started.terminate()
    try:
        await asyncio.wait_for(started.wait(), END_TIMEOUT_S)
    except TimeoutError:
        os.killpg(started.pid, signal.SIGKILL)
        await started.wait()
        raise
