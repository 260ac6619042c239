"""CPU time and requests of both services when idle, and while many payloads run."""

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from bench import hops
from bench.counting import requests
from bench.http import Connection, Form, submit_all
from bench.outcome import Outcome, Row
from bench.services import Pair, pair
from bench.sizes import Size

CPU_PERCENT = 1.0
REQUESTS_PER_SECOND = 1.0
SUBMITTERS = 8
SLEEP = b"exec sleep 86400\n"
STARTED_WITHIN_S = 300.0
POLL_S = 0.2


async def measure(folder: Path, size: Size) -> Outcome:
    """Measure over ``idle_s`` seconds without payloads, and with ``running`` payloads."""
    async with pair(folder / "idle") as services:
        await asyncio.sleep(size.settle_s)
        idle = await _at_rest(services, size.idle_s)
    async with pair(folder / "running", slots=size.running) as services:
        await _start(services, size.running)
        await asyncio.sleep(size.settle_s)
        running = await _at_rest(services, size.idle_s)
        for script in services.client.process.children():
            script.kill()
    rows = [
        *_cpu("idle", idle),
        *_cpu(f"{size.running} payloads running", running),
        Row(
            f"requests between the services, {size.running} payloads running",
            running["requests_per_second"],
            "per second",
            REQUESTS_PER_SECOND,
            f"at most {REQUESTS_PER_SECOND:g}",
        ),
    ]
    return Outcome(rows, {"idle": idle, "running": running})


async def _start(services: Pair, count: int) -> None:
    """Submit jobs that sleep, and wait until all of them run."""
    form = Form.of({"user_id": "1", "service": "bench"}, {"run.sh": SLEEP})
    async with AsyncExitStack() as stack:
        url = services.server.url
        portals = [await stack.enter_async_context(Connection(url)) for _ in range(SUBMITTERS)]
        await submit_all(portals, [form], count)
    database = services.server.folder / "db.sqlite"
    async with asyncio.timeout(STARTED_WITHIN_S):
        while hops.count(database, "Running") < count:  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)  # there is no event


async def _at_rest(services: Pair, seconds: float) -> dict[str, Any]:
    """Return the CPU of both services in per cent of a core, and their requests per second."""
    both = services.by_name()
    requests_before = requests.count(services.client.log).total()
    begun = time.perf_counter()
    before = {name: _cpu_s(service.process.cpu_times()) for name, service in both.items()}
    await asyncio.sleep(seconds)
    after = {name: _cpu_s(service.process.cpu_times()) for name, service in both.items()}
    passed = time.perf_counter() - begun
    return {
        "cpu_percent": {name: 100 * (after[name] - before[name]) / passed for name in both},
        "requests_per_second": (requests.count(services.client.log).total() - requests_before)
        / passed,
    }


def _cpu_s(times: Any) -> float:
    return float(times.user + times.system)


def _cpu(when: str, found: dict[str, Any]) -> list[Row]:
    return [
        Row(
            f"CPU of {name}, {when}",
            percent,
            "% of a core",
            CPU_PERCENT,
            f"at most {CPU_PERCENT:g} %",
        )
        for name, percent in found["cpu_percent"].items()
    ]
