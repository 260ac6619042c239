"""Deployment of the soak: supervised services, each on its own small disk, behind proxies."""

import asyncio
import contextlib
import os
import random
import re
import signal
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from faults.link_proxy import LinkProxy
from faults.proxy import Proxy
from faults.soak_disks import Disk, PoweredDisk
from faults.soak_jobs import Outage, now
from harness import Service
from job_orchestrator.common.runtime.fault_injection import Point
from job_orchestrator.common.runtime.threads import in_thread

MAX_PASSES = 6
"""A fault point is armed for its first to ``MAX_PASSES``-th pass."""

END_TIMEOUT_S = 60.0
POINTS = {
    kind: [p for p in Point if p.startswith(f"{kind}.") and p is not Point.CLIENT_CLEARING]
    for kind in ("server", "client")
}


class SupervisedService:
    """A service that is restarted when its process exits, usually with a fault armed."""

    def __init__(
        self, name: str, folder: Path, settings: Mapping[str, str], rng: random.Random
    ) -> None:
        self.name = folder.name
        self.kind = name.removeprefix("jo-")
        self.disk = (PoweredDisk if name == "jo-server" else Disk)(folder / "disk")
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
        self._signalled_at = self._died_at = float("inf")
        self._task: asyncio.Task[None] | None = None
        self._running = asyncio.Event()

    async def start(self) -> None:
        """Start the service without a fault, and supervise it from now on."""
        await self.process.start()
        self._observe_death()
        self._running.set()
        self._task = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """Stop the supervision and the service."""
        if self._task is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2 * END_TIMEOUT_S):
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

    async def cut_power(self, cause: str) -> bool:
        """Cut the power of the service's machine; False if its disk does not allow that.

        The power is back at the restart. ``cause`` is counted.
        """
        if not (isinstance(self.disk, PoweredDisk) and self.disk.mounted):
            return False
        await self._running.wait()
        self._cause, self._signalled_at = cause, now()
        self._running.clear()
        with contextlib.suppress(ProcessLookupError):
            # Stopped, so that it can't answer anything between the cut and its end.
            self.process.send_signal(signal.SIGSTOP)
        await in_thread(self.disk.cut_power)
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGKILL)
        return True

    async def _watch(self) -> None:
        while True:
            status = await self._wait_for_exit()
            self._running.clear()
            died = min(now(), self._signalled_at, self._died_at)
            self._signalled_at = self._died_at = float("inf")
            cause, self._cause = self._cause or self._cause_in_log(status), ""
            self.exits[cause] += 1
            self.note_errors()
            await asyncio.sleep(self._rng.random() * 1.5)
            await self._restart()
            self._observe_death()
            # At its start the service first ends processes that the previous run left behind.
            self.outages.append(Outage(str(self.data), died - 0.5, now() + 0.5))
            self._running.set()

    def _observe_death(self) -> None:
        """Note when the process dies. Its pipe may be closed much later, by a fork server."""
        loop = asyncio.get_running_loop()
        try:
            descriptor = os.pidfd_open(self.process.pid)
        except ProcessLookupError:
            return  # it has died already, and this was noticed

        def died() -> None:
            self._died_at = min(self._died_at, now())
            loop.remove_reader(descriptor)
            os.close(descriptor)

        loop.add_reader(descriptor, died)

    async def _wait_for_exit(self) -> int:
        """Wait for the exit. A service that ignores a signal is a problem, and is aborted."""
        while True:
            try:
                return await asyncio.wait_for(self.process.wait(), 1.0)
            except TimeoutError:
                if self._cause and now() - self._signalled_at > END_TIMEOUT_S:
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
            if isinstance(self.disk, PoweredDisk) and not self.disk.has_power:
                await in_thread(self.disk.restore_power)
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
        """Count the tracebacks that this run of the process has logged, by error; keep its log."""
        with (self.process.folder / "log").open("a") as file:
            file.write(self.process.logged)
        lines = self.process.logged.splitlines()
        for number, line in enumerate(lines):
            if line.startswith("Traceback"):
                ends = (text for text in lines[number + 1 :] if text[:1] not in (" ", ""))
                self.errors[next(ends, "?")[:150]] += 1


class Deployment:
    """A server and two clients, each client behind its own proxies: of connections and messages."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self.folder = folder
        self.rng = rng
        self.clients: list[SupervisedService] = []
        self.links: list[LinkProxy] = []
        self.proxies: list[Proxy] = []
        self.server: SupervisedService

    @property
    def services(self) -> list[SupervisedService]:
        """The server and the clients."""
        return [self.server, *self.clients]

    async def start(self, settings: Mapping[str, str]) -> None:
        """Start all services and proxies."""
        common = {"LOG_LEVEL": "INFO", "MAX_AGE": "2d"}
        for name, drain_timeout in (("client-a", "1s"), ("client-b", "6s")):
            client = SupervisedService(
                "jo-client",
                self.folder / name,
                {"SLOTS": "4", "KILL_GRACE": "0.3s", "DRAIN_TIMEOUT": drain_timeout, **common},
                self.rng,
            )
            await client.start()
            self.clients.append(client)
            self.links.append(await LinkProxy(client.process.url).open())
            self.proxies.append(await Proxy(self.links[-1].url).open())
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
        for link in self.links:
            await link.close()
        self.proxies, self.links = [], []

    def remove(self) -> None:
        """Remove the disks of all services."""
        for service in self.services:
            service.disk.remove()
