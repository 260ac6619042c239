"""Memory of each service: at rest, with a long queue, and for a very large job."""

import asyncio
import shutil
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import psutil

from bench.content import text_block
from bench.http import Connection, Form, submit_all
from bench.large_job import run_round_trip
from bench.outcome import Outcome, Row
from bench.services import Pair, Service, pair
from bench.sizes import Size

IDLE_MIB = {"jo-server": 45.0, "jo-client": 50.0}
GROWTH_MIB = {"jo-server": 32.0, "jo-client": 32.0}
SUBMITTERS = 8
GB = 1e9
BUSY = b"exec sleep 86400\n"
RESET_PEAK = "5"
"""See ``/proc/<pid>/clear_refs`` in proc(5)."""

Mib = Mapping[str, float]


async def measure(folder: Path, size: Size) -> Outcome:
    """Measure the resident memory of both services, and its growth."""
    limit = {"MAX_UPLOAD_SIZE": str(2 * size.memory_bytes)}
    async with pair(folder / "large", server=limit, client=limit) as services:
        await asyncio.sleep(size.settle_s)
        idle = _resident(services)
        _reset_peaks(services)
        at_rest = _peaks(services)
        await run_round_trip(services, text_block(), size.memory_bytes)
        large = _peaks(services)
    shutil.rmtree(folder / "large")
    async with pair(folder / "queued", slots=1) as services:
        _reset_peaks(services)
        before = _peaks(services)
        await _queue(services, size.queued)
        queued = _peaks(services)
    rows = [
        *_rows("memory of {}, idle", idle, IDLE_MIB),
        *_rows(
            f"growth of {{}}, {size.memory_bytes / GB:g} GB there and back",
            {name: large[name] - at_rest[name] for name in idle},
            GROWTH_MIB,
        ),
        *_rows(
            f"growth of {{}}, {size.queued} jobs queued",
            {name: queued[name] - before[name] for name in before},
            GROWTH_MIB,
        ),
    ]
    return Outcome(rows, {"idle_mib": idle, "peak_large_mib": large, "peak_queued_mib": queued})


async def _queue(services: Pair, count: int) -> None:
    """Occupy the only slot and submit ``count`` more jobs."""
    async with AsyncExitStack() as stack:
        url = services.server.url
        portals = [await stack.enter_async_context(Connection(url)) for _ in range(SUBMITTERS)]
        busy = Form.of({"user_id": "1", "service": "bench"}, {"run.sh": BUSY})
        await portals[0].until_running(await portals[0].submit(busy))
        form = Form.of({"user_id": "1", "service": "bench"}, {"run.sh": b"exit 0\n"})
        await submit_all(portals, [form], count)


def _resident(services: Pair) -> Mib:
    """Return the resident memory, including shared libraries, as ``ps`` shows it.

    Child processes that a service keeps are added with their proportional set size.
    """
    return {
        name: _status_mib(each, "VmRSS")
        + sum(map(_proportional_mib, each.process.children(recursive=True)))
        for name, each in services.by_name().items()
    }


def _proportional_mib(child: psutil.Process) -> float:
    return float(child.memory_full_info().pss) / (1 << 20)


def _reset_peaks(services: Pair) -> None:
    for service in services.by_name().values():
        Path(f"/proc/{service.process.pid}/clear_refs").write_text(RESET_PEAK)


def _peaks(services: Pair) -> Mib:
    """Return the peak of the resident memory since the last reset."""
    return {name: _status_mib(each, "VmHWM") for name, each in services.by_name().items()}


def _status_mib(service: Service, field: str) -> float:
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) / 1024


def _rows(what: str, found: Mib, limits: Mib) -> list[Row]:
    return [
        Row(what.format(name), mib, "MiB", limits[name], f"at most {limits[name]:g} MiB")
        for name, mib in found.items()
    ]
