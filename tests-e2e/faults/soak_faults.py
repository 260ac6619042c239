"""Faults of the soak that come from outside of the services."""

import asyncio
import random
import signal
from collections import Counter

from faults.proxy import Proxy
from faults.soak_jobs import Absence, now
from faults.soak_world import Ward, World
from job_orchestrator.common.runtime.threads import in_thread

PAUSE_S = (0.2, 1.6)
"""Seconds between two faults."""

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
    "SIGTERM of a client": 1,
    "connections cut": 10,
    "connection cut after some bytes": 14,
    "answer replaced by garbage": 10,
    "nothing passes for a while": 5,
    "connections refused for a while": 5,
    "delay": 6,
    "client away for longer than LOST_AFTER": 1,
    "disk full": 5,
    "disk read-only": 3,
}
"""Kinds of faults with their relative frequencies."""


class Trouble:
    """Injects faults until it is cancelled, and counts them."""

    def __init__(self, world: World, chance: random.Random, *, lost_after_s: float) -> None:
        self.done: Counter[str] = Counter()
        self.disks_failed = False
        self._world = world
        self._chance = chance
        self._lost_after_s = lost_after_s
        self._long = asyncio.Lock()
        self._refusing: set[Proxy] = set()

    async def make(self) -> None:
        """Inject one fault after another, at most three at the same time."""
        at_once = asyncio.Semaphore(3)

        async def one(kind: str) -> None:
            try:
                if await self._do(kind):
                    self.done[kind] += 1
            finally:
                at_once.release()

        async with asyncio.TaskGroup() as tasks:
            while True:
                await asyncio.sleep(self._chance.uniform(*PAUSE_S))
                await at_once.acquire()
                kind = self._chance.choices(list(FAULTS), list(FAULTS.values()))[0]
                tasks.create_task(one(kind))

    async def _do(self, kind: str) -> bool:
        world, chance = self._world, self._chance
        number = chance.randrange(2)
        client, proxy = world.clients[number], world.proxies[number]
        weather = chance.choice((proxy.requests, proxy.answers))
        match kind:
            case "kill -9 of the server":
                await world.server.strike(signal.SIGKILL, kind)
            case "kill -9 of a client":
                await client.strike(signal.SIGKILL, kind)
            case "SIGTERM of the server":
                await world.server.strike(signal.SIGTERM, kind)
            case "SIGTERM of a client":
                await client.strike(signal.SIGTERM, kind)
            case "connections cut":
                await proxy.cut()
            case "connection cut after some bytes":
                weather.cut_after = chance.randrange(1, 3000)
            case "answer replaced by garbage":
                proxy.answers.garbage = chance.choice(GARBAGE)
            case "nothing passes for a while":
                proxy.hold()
                await self._for_a_while(4.0)
                proxy.release()
            case "connections refused for a while":
                return await self._refuse(proxy, self._chance.uniform(0.2, 4.0))
            case "delay":
                weather.delay_s = chance.uniform(0.01, 0.3)
                await self._for_a_while(4.0)
                weather.delay_s = 0.0
            case "client away for longer than LOST_AFTER":
                return await self._lose(client, proxy)
            case "disk full" | "disk read-only":
                ward = chance.choice(world.wards)
                if ward.disk.lock.locked():
                    return False
                async with ward.disk.lock:
                    spoil = self._fill if kind == "disk full" else self._protect
                    return await spoil(ward)
        return True

    async def _for_a_while(self, longest_s: float) -> None:
        await asyncio.sleep(self._chance.uniform(0.2, longest_s))

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

    async def _lose(self, client: Ward, proxy: Proxy) -> bool:
        if self._long.locked():
            return False  # the other client must stay reachable
        async with self._long:
            begin = now()
            refused = await self._refuse(proxy, self._lost_after_s * 1.5)
            # Until the server has been able to end the abandoned attempts.
            client.absences.append(Absence(str(client.data), begin, now() + 5.0))
        return refused

    async def _fill(self, ward: Ward) -> bool:
        try:
            # Not asyncio.to_thread, which continues unseen when it is cancelled.
            filled = await in_thread(ward.disk.fill)
            self.disks_failed = self.disks_failed or filled
            await self._for_a_while(3.0)
        finally:
            await in_thread(ward.disk.empty)
        return filled

    async def _protect(self, ward: Ward) -> bool:
        # A file system with files open for writing can't be made read-only: try immediately.
        try:
            protected = await in_thread(ward.disk.make, writable=False)
            self.disks_failed = self.disks_failed or protected
            if protected:
                await self._for_a_while(3.0)
        finally:
            await in_thread(ward.disk.make, writable=True)
        return protected
