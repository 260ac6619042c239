"""Throughput of trivial jobs: submitted, run, and their ZIP downloaded."""

import asyncio
import statistics
import time
from contextlib import AsyncExitStack
from pathlib import Path

from bench.floors.scripts import SCRIPT, per_second
from bench.http import Connection, Form
from bench.outcome import Outcome, Row
from bench.services import pair
from bench.sizes import Size

SUBMITTERS = 8
FETCHERS = 8
USERS = 10
OF_FLOOR = 0.30
FLOOR_PARALLEL = 10


async def measure(folder: Path, size: Size) -> Outcome:
    """Run ``throughput_jobs`` a round for each number of slots, after measuring the floor."""
    rows: list[Row] = []
    details: dict[str, object] = {}
    for slots in size.throughput_slots:
        rates, floors = await _rates(folder / str(slots), size, slots)
        rate, floor = statistics.median(rates), statistics.median(floors)
        rows.append(
            Row(
                f"{size.throughput_jobs} trivial jobs, {slots} slots",
                rate,
                "jobs/s",
                OF_FLOOR * floor,
                f"at least {OF_FLOOR:g} × the floor",
                at_most=False,
                floor=floor,
                floor_name=f"`bash run.sh`, {FLOOR_PARALLEL} at a time, per second",
            )
        )
        details[str(slots)] = {"jobs_per_second": rates, "spawns_per_second": floors}
    return Outcome(rows, details)


async def _rates(folder: Path, size: Size, slots: int) -> tuple[list[float], list[float]]:
    """Return jobs per second and scripts per second of each round."""
    rates: list[float] = []
    floors: list[float] = []
    forms = [
        Form.of({"user_id": str(user), "service": "bench"}, {"run.sh": SCRIPT.encode()})
        for user in range(USERS)
    ]
    async with AsyncExitStack() as stack:
        services = await stack.enter_async_context(pair(folder, slots=slots))
        url = services.server.url
        submitters = [await stack.enter_async_context(Connection(url)) for _ in range(SUBMITTERS)]
        fetchers = [await stack.enter_async_context(Connection(url)) for _ in range(FETCHERS)]
        await submit_and_fetch(submitters, fetchers, forms, USERS)
        for _ in range(size.rounds):
            floors.append(per_second(folder, size.spawns, FLOOR_PARALLEL))
            begun = time.perf_counter()
            await submit_and_fetch(submitters, fetchers, forms, size.throughput_jobs)
            rates.append(size.throughput_jobs / (time.perf_counter() - begun))
    return rates, floors


async def submit_and_fetch(
    submitters: list[Connection], fetchers: list[Connection], forms: list[Form], jobs: int
) -> None:
    """Submit ``jobs`` jobs and download all results, over separate connections."""
    to_submit = iter(range(jobs))
    submitted: asyncio.Queue[int | None] = asyncio.Queue()

    async def submit(portal: Connection) -> None:
        for number in to_submit:
            submitted.put_nowait(await portal.submit(forms[number % len(forms)]))

    async def fetch(portal: Connection) -> None:
        while (job_id := await submitted.get()) is not None:
            await portal.result(job_id)

    async with asyncio.TaskGroup() as fetching:
        for portal in fetchers:
            fetching.create_task(fetch(portal))
        async with asyncio.TaskGroup() as submitting:
            for portal in submitters:
                submitting.create_task(submit(portal))
        for _ in fetchers:
            submitted.put_nowait(None)
