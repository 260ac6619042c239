"""Deployment of the soak: supervised services, each on its own small disk, behind proxies."""

import asyncio
import contextlib
import random
import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from faults.proxy import Proxy
from faults.soak_jobs import Outage, now
from harness import Service
from job_orchestrator.common.runtime.fault_injection import Point

DISK = "300m"
MAX_PASSES = 6
"""A fault point is armed for its first to ``MAX_PASSES``-th pass."""

END_TIMEOUT_S = 60.0
POINTS = {
    kind: [p for p in Point if p.startswith(f"{kind}.") and p is not Point.CLIENT_CLEARING]
    for kind in ("server", "client")
}


class Disk:
    """A small file system for one service, or a folder if this user may not mount one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = asyncio.Lock()  # held while a disk fault is injected
        folder.mkdir(parents=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)]
        self.mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0

    def fill(self) -> bool:
        """Fill the disk; False if it is a plain folder."""
        if self.mounted:
            with contextlib.suppress(OSError), (self.folder / "filler").open("wb") as file:
                while True:
                    file.write(bytes(1 << 20))
        return self.mounted

    def empty(self) -> None:
        """Free the space that ``fill`` used."""
        (self.folder / "filler").unlink(missing_ok=True)

    def set_writable(self, *, writable: bool) -> bool:
        """Remount the disk writable or read-only; False if that is not possible now."""
        option = f"remount,{'rw' if writable else 'ro'}"
        command = ["mount", "-o", option, str(self.folder)]
        return self.mounted and subprocess.run(command, capture_output=True).returncode == 0

    def remove(self) -> None:
        """Unmount the disk and remove its folder."""
        if self.mounted:
            subprocess.run(["umount", "-l", str(self.folder)], check=True)
        shutil.rmtree(self.folder, ignore_errors=True)


class SupervisedService:
    """A service that is restarted when its process exits, usually with a fault armed."""

    def __init__(
        self, name: str, folder: Path, settings: Mapping[str, str], rng: random.Random
    ) -> None:
        self.name = folder.name
        self.kind = name.removeprefix("jo-")
        self.disk = Disk(folder / "disk")
        self.data = self.disk.folder / "data"
        self.process = Service(
            name, folder, {"DATA_PATH": str(self.data), "PYTHONFAULTHANDLER": "1", **settings}
        )
        self.outages: list[Outage] = []
        self.exits: Counter[str] = Counter()
        self.armed: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.problems: list[str] = []
        self.faults_allowed = True
        self._rng = rng
        self._cause = ""
        self._signalled_at = float("inf")
        self._task: asyncio.Task[None] | None = None
        self._running = asyncio.Event()

    async def start(self) -> None:
        """Start the service without a fault, and supervise it from now on."""
        await self.process.start()
        self._running.set()
        self._task = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """Stop the supervision and the service."""
        if self._task is not None:
            await self._running.wait()
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.process.end()

    async def stop_faults(self) -> None:
        """Restart the service without a fault; later restarts have none either."""
        self.faults_allowed = False
        await self.send_signal(signal.SIGTERM, "faults stopped")
        await asyncio.sleep(0)
        await self._running.wait()

    async def send_signal(self, number: int, cause: str) -> None:
        """Send a signal that makes the service exit. ``cause`` is counted."""
        await self._running.wait()
        self._cause, self._signalled_at = cause, now()
        self._running.clear()
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    async def _watch(self) -> None:
        while True:
            status = await self._wait_for_exit()
            self._running.clear()
            died, self._signalled_at = min(now(), self._signalled_at), float("inf")
            cause, self._cause = self._cause or self._cause_in_log(status), ""
            self.exits[cause] += 1
            self.note_errors()
            await asyncio.sleep(self._rng.random() * 1.5)
            await self._restart()
            # At its start the service first ends processes that the previous run left behind.
            self.outages.append(Outage(str(self.data), died - 0.5, now() + 0.5))
            self._running.set()

    async def _wait_for_exit(self) -> int:
        """Wait for the exit. A service that ignores a signal is a problem, and is aborted."""
        while True:
            try:
                return await asyncio.wait_for(self.process.wait(), END_TIMEOUT_S)
            except TimeoutError:
                if self._cause:
                    # With PYTHONFAULTHANDLER, SIGABRT makes it log the stacks of its threads.
                    self.process.send_signal(signal.SIGABRT)
                    await self.process.wait()
                    log = self.process.logged[-4000:]
                    self.problems.append(f"{self.name} did not end after {self._cause}: {log}")
                    return -signal.SIGABRT

    async def _restart(self) -> None:
        for tries in range(100):
            self.process.settings.pop("JO_FAULT", None)
            if self.faults_allowed and tries == 0 and self._rng.random() < 0.8:
                self.process.settings["JO_FAULT"] = self._fault()
            self.process.log.clear()
            try:
                await self.process.start()
            except (AssertionError, TimeoutError):
                # It exited before it listened, or its disk is full at the moment.
                with contextlib.suppress(ProcessLookupError):
                    self.process.send_signal(signal.SIGKILL)
                await self.process.wait()
                await asyncio.sleep(0.3)
            else:
                return
        self.problems.append(f"{self.name} does not start: {self.process.logged[-2000:]}")

    def _fault(self) -> str:
        """Return a fault to arm: mostly a crash at a fault point."""
        dice = self._rng.random()
        if dice < 0.75:
            point = self._rng.choice(POINTS[self.kind])
            return f"{point}:{self._rng.randint(1, MAX_PASSES)}"
        if dice < 0.9:
            self.armed["database fails at intervals"] += 1
            return f"database:{self._rng.randint(20, 200)}*"
        self.armed["slow disk"] += 1
        return "disk.flush:3*:slow"

    def _cause_in_log(self, status: int) -> str:
        found = re.findall(r"JO_FAULT: kill at (\S+)", self.process.logged)
        if found:
            return f"kill -9 at {found[-1]}"
        self.problems.append(f"{self.name} ended ({status}): {self.process.logged[-2000:]}")
        return f"unexpected exit ({status})"

    def note_errors(self) -> None:
        """Count the tracebacks that this run of the process has logged, by error."""
        lines = self.process.logged.splitlines()
        for number, line in enumerate(lines):
            if line.startswith("Traceback"):
                ends = (text for text in lines[number + 1 :] if text[:1] not in (" ", ""))
                self.errors[next(ends, "?")[:150]] += 1


class Deployment:
    """A server and two clients, each client behind its own proxy."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self.folder = folder
        self.rng = rng
        self.clients: list[SupervisedService] = []
        self.proxies: list[Proxy] = []
        self.server: SupervisedService

    @property
    def services(self) -> list[SupervisedService]:
        """The server and the clients."""
        return [self.server, *self.clients]

    async def start(self, settings: Mapping[str, str]) -> None:
        """Start all services and proxies."""
        common = {"LOG_LEVEL": "INFO", "MAX_AGE": "2d"}
        for name in ("client-a", "client-b"):
            client = SupervisedService(
                "jo-client",
                self.folder / name,
                {"SLOTS": "4", "KILL_GRACE": "0.3s", "DRAIN_TIMEOUT": "1s", **common},
                self.rng,
            )
            await client.start()
            self.clients.append(client)
            self.proxies.append(await Proxy(client.process.url).open())
        self.server = SupervisedService("jo-server", self.folder / "server", {}, self.rng)
        self.server.process.settings |= {
            "DB_PATH": str(self.server.disk.folder / "db.sqlite"),
            "SERVICE_EXAMPLE_UPLOAD_URL": ",".join(f"{p.url}/submit" for p in self.proxies),
            "SERVICE_EXAMPLE_DOWNLOAD_URL": ",".join(f"{p.url}/retrieve" for p in self.proxies),
            **common,
            **settings,
        }
        await self.server.start()

    async def stop(self) -> None:
        """Stop the server, then the clients and the proxies."""
        for service in self.services:
            await service.stop()
        for proxy in self.proxies:
            await proxy.close()

    def remove(self) -> None:
        """Remove the disks of all services."""
        for service in self.services:
            service.disk.remove()
