"""Faults of the soak that are injected from outside: signals, power, network and disks."""

import asyncio
import contextlib
import random
import signal
from collections import Counter

import psutil

from faults.link_proxy import LinkProxy
from faults.proxy import Proxy
from faults.soak_deployment import Deployment, SupervisedService
from faults.soak_jobs import Outage, now
from job_orchestrator.common.runtime.threads import in_thread

PAUSE_S = (0.2, 1.6)
"""Range of the pause between two faults."""

GARBAGE = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>",
    b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 3\r\n\r\nbad",
    b"HTTP/1.1 200 OK\r\nContent-Type: application/zip\r\nContent-Length: 4\r\n\r\nPK\x05\x06",
    bytes(range(256)),
)

FAULTS = {
    "kill -9 of the server": 2,
    "kill -9 of a client": 2,
    "SIGTERM of the server": 1,
    "SIGTERM of a client": 2,
    "power cut of the server": 2,
    "fork server stopped": 3,
    "fork server killed": 3,
    "connections cut": 10,
    "connection cut after some bytes": 14,
    "answer replaced by garbage": 10,
    "nothing passes for a while": 5,
    "connections refused for a while": 5,
    "delay": 6,
    "link cut at a message": 10,
    "messages of the link repeated": 4,
    "client away for longer than LOST_AFTER": 1,
    "disk full": 5,
    "disk read-only": 3,
    "disk of a client without inodes": 4,
}
"""Kinds of faults with their relative frequencies."""


class FaultInjector:
    """Injects random faults until it is cancelled, and counts them by kind."""

    def __init__(self, deployment: Deployment, rng: random.Random, *, lost_after_s: float) -> None:
        self.injected: Counter[str] = Counter()
        self.disks_failed = False
        self._deployment = deployment
        self._rng = rng
        self._lost_after_s = lost_after_s
        self._long = asyncio.Lock()
        self._refusing: set[Proxy] = set()

    async def run(self) -> None:
        """Inject one fault after the other, at most three at the same time."""
        concurrent = asyncio.Semaphore(3)

        async def one(kind: str) -> None:
            try:
                if await self._inject(kind):
                    self.injected[kind] += 1
            finally:
                concurrent.release()

        async with asyncio.TaskGroup() as tasks:
            while True:
                await asyncio.sleep(self._rng.uniform(*PAUSE_S))
                await concurrent.acquire()
                kind = self._rng.choices(list(FAULTS), list(FAULTS.values()))[0]
                tasks.create_task(one(kind))

    async def _inject(self, kind: str) -> bool:
        deployment, rng = self._deployment, self._rng
        number = rng.randrange(2)
        client, proxy = deployment.clients[number], deployment.proxies[number]
        conditions = rng.choice((proxy.requests, proxy.responses))
        with (deployment.folder / "faults").open("a") as file:
            file.write(f"{now():.3f} {kind} (client {'ab'[number]})\n")
        match kind:
            case "kill -9 of the server":
                await deployment.server.send_signal(signal.SIGKILL, kind)
            case "kill -9 of a client":
                await client.send_signal(signal.SIGKILL, kind)
            case "SIGTERM of the server":
                await deployment.server.send_signal(signal.SIGTERM, kind)
            case "SIGTERM of a client":
                await client.send_signal(signal.SIGTERM, kind)
            case "power cut of the server":
                async with deployment.server.disk.lock:
                    return await deployment.server.cut_power(kind)
            case "fork server stopped" | "fork server killed":
                return await self._break_fork_server(client, stopped=kind.endswith("stopped"))
            case "link cut at a message":
                link = deployment.links[number]
                faults = rng.choice((link.requests, link.responses))
                faults.delivered = rng.random() < 0.5
                faults.cut_at = faults.count + rng.randint(1, 12)
            case "messages of the link repeated":
                return await self._repeat(deployment.links[number])
            case "connections cut":
                await proxy.cut()
            case "connection cut after some bytes":
                conditions.cut_after = rng.randrange(1, 3000)
            case "answer replaced by garbage":
                proxy.responses.garbage = rng.choice(GARBAGE)
            case "nothing passes for a while":
                proxy.pause()
                await self._for_a_while(4.0)
                proxy.resume()
            case "connections refused for a while":
                return await self._refuse(proxy, self._rng.uniform(0.2, 4.0))
            case "delay":
                conditions.delay_s = rng.uniform(0.01, 0.3)
                await self._for_a_while(4.0)
                conditions.delay_s = 0.0
            case "client away for longer than LOST_AFTER":
                return await self._lose(client, proxy)
            case "disk full" | "disk read-only":
                service = rng.choice(deployment.services)
                return await self._spoil(service, kind)
            case "disk of a client without inodes":
                return await self._spoil(client, kind)
        return True

    async def _for_a_while(self, longest_s: float) -> None:
        await asyncio.sleep(self._rng.uniform(0.2, longest_s))

    async def _refuse(self, proxy: Proxy, seconds: float) -> bool:
        if proxy in self._refusing:
            return False
        self._refusing.add(proxy)
        await proxy.refuse()
        try:
            await asyncio.sleep(seconds)
        finally:
            self._refusing.discard(proxy)
            await proxy.open()
        return True

    async def _lose(self, client: SupervisedService, proxy: Proxy) -> bool:
        if self._long.locked():
            return False  # one client has to stay reachable
        async with self._long:
            begin = now()
            refused = await self._refuse(proxy, self._lost_after_s * 1.5)
            # The margin lets the server end the attempts that it abandoned on this client.
            client.outages.append(Outage(str(client.data), begin, now() + 5.0))
        return refused

    async def _repeat(self, link: LinkProxy) -> bool:
        """Send each message twice, and those of a broken connection again in the next one."""
        directions = (link.requests, link.responses)
        for faults in directions:
            faults.earlier, faults.repeated = [], True
        await self._for_a_while(3.0)
        for faults in directions:
            faults.repeated = False
        return True

    async def _break_fork_server(self, client: SupervisedService, *, stopped: bool) -> bool:
        """Kill the fork server of a client, or stop it, perhaps for longer than it may take."""
        if (fork_server := _fork_server(client)) is None:
            return False
        with contextlib.suppress(psutil.NoSuchProcess):
            if not stopped:
                fork_server.kill()
                return True
            fork_server.suspend()
            try:
                await self._for_a_while(20.0)
            finally:
                # Also when the faults end: a stopped process keeps the pipe of its client open.
                fork_server.resume()
        return True

    async def _spoil(self, service: SupervisedService, kind: str) -> bool:
        if service.disk.lock.locked():
            return False
        async with service.disk.lock:
            if kind == "disk read-only":
                return await self._protect(service)
            return await self._fill(service, inodes=kind != "disk full")

    async def _fill(self, service: SupervisedService, *, inodes: bool) -> bool:
        disk = service.disk
        try:
            # Not asyncio.to_thread: after a cancellation its thread would continue unobserved.
            filled = await in_thread(disk.take_inodes if inodes else disk.fill)
            self.disks_failed = self.disks_failed or filled
            await self._for_a_while(3.0)
        finally:
            await in_thread(disk.empty)
        return filled

    async def _protect(self, service: SupervisedService) -> bool:
        # Fails while a file on the file system is open for writing; then there is no fault.
        try:
            protected = await in_thread(service.disk.set_writable, writable=False)
            self.disks_failed = self.disks_failed or protected
            if protected:
                await self._for_a_while(3.0)
        finally:
            await in_thread(service.disk.set_writable, writable=True)
        return protected


def _fork_server(client: SupervisedService) -> psutil.Process | None:
    """Return the fork server of a client; None if it has none at present."""
    with contextlib.suppress(psutil.NoSuchProcess, AssertionError):
        for child in psutil.Process(client.process.pid).children():
            if any(word.endswith("fork_server/program.py") for word in child.cmdline()):
                return child
    return None
