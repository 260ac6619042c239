"""Environment of the soak: services that are restarted when they die, on separate disks."""

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
from faults.soak_jobs import Absence, now
from harness import Service
from job_orchestrator.common.runtime.fault_injection import Point

DISK = "300m"
MOST_ARRIVALS = 6
"""A fault point is armed for one of its first arrivals, up to this number."""

END_TIMEOUT_S = 60.0
POINTS = {
    kind: [p for p in Point if p.startswith(f"{kind}.") and p is not Point.CLIENT_CLEARING]
    for kind in ("server", "client")
}


class Disk:
    """Small file system of one service, or a folder if this user may not mount one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = asyncio.Lock()  # held by the fault that uses the disk
        folder.mkdir(parents=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)]
        self.own = subprocess.run(command, capture_output=True, check=False).returncode == 0

    def fill(self) -> bool:
        """Fill the disk."""
        if self.own:
            with contextlib.suppress(OSError), (self.folder / "filler").open("wb") as file:
                while True:
                    file.write(bytes(1 << 20))
        return self.own

    def empty(self) -> None:
        """Free the space again."""
        (self.folder / "filler").unlink(missing_ok=True)

    def make(self, *, writable: bool) -> bool:
        """Make the disk writable or read-only. Return False if that is not possible now."""
        option = f"remount,{'rw' if writable else 'ro'}"
        command = ["mount", "-o", option, str(self.folder)]
        return self.own and subprocess.run(command, capture_output=True).returncode == 0

    def remove(self) -> None:
        """Unmount the disk."""
        if self.own:
            subprocess.run(["umount", "-l", str(self.folder)], check=True)
        shutil.rmtree(self.folder, ignore_errors=True)


class Ward:
    """Supervised service: restarted whenever it dies, half the time with an armed fault."""

    def __init__(
        self, name: str, folder: Path, settings: Mapping[str, str], chance: random.Random
    ) -> None:
        self.name = folder.name
        self.kind = name.removeprefix("jo-")
        self.disk = Disk(folder / "disk")
        self.data = self.disk.folder / "data"
        self.service = Service(
            name, folder, {"DATA_PATH": str(self.data), "PYTHONFAULTHANDLER": "1", **settings}
        )
        self.absences: list[Absence] = []
        self.deaths: Counter[str] = Counter()
        self.armed: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.problems: list[str] = []
        self.faults_allowed = True
        self._chance = chance
        self._cause = ""
        self._struck_at = float("inf")
        self._task: asyncio.Task[None] | None = None
        self._up = asyncio.Event()

    async def start(self) -> None:
        """Start the service without a fault and supervise it."""
        await self.service.start()
        self._up.set()
        self._task = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """Stop the service permanently."""
        if self._task is not None:
            await self._up.wait()
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.service.end()

    async def calm(self) -> None:
        """Restart the service without a fault, and inject no more."""
        self.faults_allowed = False
        await self.strike(signal.SIGTERM, "calmed")
        await asyncio.sleep(0)
        await self._up.wait()

    async def strike(self, number: int, cause: str) -> None:
        """Send a signal that ends the service."""
        await self._up.wait()
        self._cause, self._struck_at = cause, now()
        self._up.clear()
        with contextlib.suppress(ProcessLookupError):
            self.service.send(number)

    async def _watch(self) -> None:
        while True:
            status = await self._ended()
            self._up.clear()
            died, self._struck_at = min(now(), self._struck_at), float("inf")
            cause, self._cause = self._cause or self._cause_in_log(status), ""
            self.deaths[cause] += 1
            self.note_errors()
            await asyncio.sleep(self._chance.random() * 1.5)
            await self._revive()
            # Until it has ended the processes of its previous run.
            self.absences.append(Absence(str(self.data), died - 0.5, now() + 0.5))
            self._up.set()

    async def _ended(self) -> int:
        """Wait for the end. A service that does not end after a signal is a problem."""
        while True:
            try:
                return await asyncio.wait_for(self.service.gone(), END_TIMEOUT_S)
            except TimeoutError:
                if self._cause:
                    # PYTHONFAULTHANDLER makes it dump the stacks of its threads.
                    self.service.send(signal.SIGABRT)
                    await self.service.gone()
                    log = self.service.logged[-4000:]
                    self.problems.append(f"{self.name} did not end after {self._cause}: {log}")
                    return -signal.SIGABRT

    async def _revive(self) -> None:
        for tries in range(100):
            self.service.settings.pop("JO_FAULT", None)
            if self.faults_allowed and tries == 0 and self._chance.random() < 0.8:
                self.service.settings["JO_FAULT"] = self._fault()
            self.service.log.clear()
            try:
                await self.service.start()
            except (AssertionError, TimeoutError):
                # It died before it listened, or its disk is full.
                with contextlib.suppress(ProcessLookupError):
                    self.service.send(signal.SIGKILL)
                await self.service.gone()
                await asyncio.sleep(0.3)
            else:
                return
        self.problems.append(f"{self.name} does not start: {self.service.logged[-2000:]}")

    def _fault(self) -> str:
        """Choose a fault, most often a crash at a named point."""
        dice = self._chance.random()
        if dice < 0.75:
            point = self._chance.choice(POINTS[self.kind])
            return f"{point}:{self._chance.randint(1, MOST_ARRIVALS)}"
        if dice < 0.9:
            self.armed["database fails now and then"] += 1
            return f"database:{self._chance.randint(20, 200)}*"
        self.armed["slow disk"] += 1
        return "disk.flush:3*:slow"

    def _cause_in_log(self, status: int) -> str:
        found = re.findall(r"JO_FAULT: kill at (\S+)", self.service.logged)
        if found:
            return f"kill -9 at {found[-1]}"
        self.problems.append(f"{self.name} ended ({status}): {self.service.logged[-2000:]}")
        return f"by itself ({status})"

    def note_errors(self) -> None:
        """Count the errors with tracebacks in the log of this run of the service."""
        lines = self.service.logged.splitlines()
        for number, line in enumerate(lines):
            if line.startswith("Traceback"):
                ends = (text for text in lines[number + 1 :] if text[:1] not in (" ", ""))
                self.errors[next(ends, "?")[:150]] += 1


class World:
    """A server and two clients, each behind a separate proxy."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self.folder = folder
        self.chance = chance
        self.clients: list[Ward] = []
        self.proxies: list[Proxy] = []
        self.server: Ward

    @property
    def wards(self) -> list[Ward]:
        """The supervised services."""
        return [self.server, *self.clients]

    async def start(self, settings: Mapping[str, str]) -> None:
        """Start all services."""
        common = {"LOG_LEVEL": "INFO", "MAX_AGE": "2d"}
        for name in ("client-a", "client-b"):
            client = Ward(
                "jo-client",
                self.folder / name,
                {"SLOTS": "4", "KILL_GRACE": "0.3s", "DRAIN_TIMEOUT": "1s", **common},
                self.chance,
            )
            await client.start()
            self.clients.append(client)
            self.proxies.append(await Proxy(client.service.url).open())
        self.server = Ward("jo-server", self.folder / "server", {}, self.chance)
        self.server.service.settings |= {
            "DB_PATH": str(self.server.disk.folder / "db.sqlite"),
            "SERVICE_EXAMPLE_UPLOAD_URL": ",".join(f"{p.url}/submit" for p in self.proxies),
            "SERVICE_EXAMPLE_DOWNLOAD_URL": ",".join(f"{p.url}/retrieve" for p in self.proxies),
            **common,
            **settings,
        }
        await self.server.start()

    async def stop(self) -> None:
        """Stop all services, the server first."""
        for ward in self.wards:
            await ward.stop()
        for proxy in self.proxies:
            await proxy.close()

    def remove(self) -> None:
        """Remove the disks."""
        for ward in self.wards:
            ward.disk.remove()
