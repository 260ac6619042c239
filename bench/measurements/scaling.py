"""Cost of frequent operations depending on the number of jobs in the database."""

import shutil
import statistics
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from itertools import zip_longest
from pathlib import Path

from bench import rows
from bench.http import Connection, UnexpectedAnswer
from bench.outcome import Outcome, Row
from bench.services import service
from bench.sizes import Size
from job_orchestrator.server.scheduling.base import Limits
from job_orchestrator.server.scheduling.fair_share import FairShare
from job_orchestrator.server.store.base import JobStore
from job_orchestrator.server.store.queue import Offer, WaitingUser
from job_orchestrator.server.store.sqlite.store import open_store

OF_SMALLEST = 1.5
CLIENT = "http://127.0.0.1:9/submit"
SETTINGS = {
    # Not the service of the rows, so that the queued jobs are not dispatched.
    "SERVICE_OTHER_UPLOAD_URL": CLIENT,
    "SERVICE_OTHER_DOWNLOAD_URL": "http://127.0.0.1:9/retrieve",
}

Samples = dict[str, list[float]]
"""Milliseconds, by database."""


async def measure(folder: Path, size: Size) -> Outcome:
    """Measure the same work on databases of several sizes.

    The databases are used in rotation, so that changes of the machine's load affect all of them.
    """
    databases = await _databases(folder, size.scaling)
    found = await _passes(databases, size.scaling_samples)
    found |= await _answers(databases, size.scaling_samples)
    medians = {
        what: {name: statistics.median(times) for name, times in samples.items()}
        for what, samples in found.items()
    }
    return Outcome([_row(what, by_name) for what, by_name in medians.items()], medians)


async def _databases(folder: Path, sizes: Iterable[tuple[int, int]]) -> dict[str, Path]:
    """Create a database of each size; return them by name, the smallest first."""
    growing = folder / "growing.sqlite"
    async with open_store(growing):
        pass
    databases: dict[str, Path] = {}
    ended = queued = 0
    for wanted_ended, wanted_queued in sizes:
        rows.add_ended(growing, wanted_ended - ended)
        rows.add_queued(growing, wanted_queued - queued)
        ended, queued = wanted_ended, wanted_queued
        copy = folder / f"{ended}-{queued}" / "db.sqlite"
        copy.parent.mkdir()
        shutil.copy(growing, copy)
        databases[f"{ended:,} ended, {queued:,} queued"] = copy
    return databases


async def _passes(databases: Mapping[str, Path], samples: int) -> dict[str, Samples]:
    """Measure passes of the dispatcher that claim a job, and passes without a free slot."""
    claiming: Samples = defaultdict(list)
    full: Samples = defaultdict(list)
    async with AsyncExitStack() as stack:
        stores = {
            name: await stack.enter_async_context(open_store(path))
            for name, path in databases.items()
        }
        for _ in range(samples):
            for name, store in stores.items():
                full[name].append(await _pass_ms(store, 0))
                claiming[name].append(await _pass_ms(store, 1))
                rows.put_back(databases[name])
    return {
        "a dispatcher pass that claims a job": claiming,
        "a dispatcher pass, no free slot": full,
    }


async def _pass_ms(store: JobStore, slots: int) -> float:
    begun = time.perf_counter()
    claims = await store.claim({rows.SERVICE: _offer(slots)})
    passed = time.perf_counter() - begun
    if len(claims[rows.SERVICE].jobs) != slots:
        raise AssertionError(claims)
    return passed * 1000


def _offer(slots: int) -> Offer:
    def decide(active: int, _: int, waiting: Sequence[WaitingUser], __: object) -> Sequence[int]:
        return FairShare().choose(Limits(slots, slots), active, slots, waiting)

    return Offer(slots, [CLIENT] * slots, decide)


async def _answers(databases: Mapping[str, Path], samples: int) -> dict[str, Samples]:
    """Measure GET /download of ended and of queued jobs, each requested once."""
    found: dict[str, Samples] = {}
    async with AsyncExitStack() as stack:
        portals: dict[str, Connection] = {}
        for name, path in databases.items():
            server = await stack.enter_async_context(service("jo-server", path.parent, SETTINGS))
            portals[name] = await stack.enter_async_context(Connection(server.url))
        for status, what in (("Failed", "of an ended job"), ("Queued", "of a queued job")):
            times: Samples = defaultdict(list)
            ids = {name: rows.ids(path, status, samples) for name, path in databases.items()}
            for round_ids in zip_longest(*ids.values()):
                for (name, portal), job_id in zip(portals.items(), round_ids, strict=True):
                    if job_id is not None:
                        times[name].append(await _get_ms(portal, job_id))
            found[f"GET /download {what}"] = times
    return found


async def _get_ms(portal: Connection, job_id: int) -> float:
    begun = time.perf_counter()
    answer = await portal.get(f"/download/{job_id}")
    passed = time.perf_counter() - begun
    if answer.status != 200:
        raise UnexpectedAnswer(f"{answer.status}: {answer.body[:300]!r}")
    return passed * 1000


def _row(what: str, medians: Mapping[str, float]) -> Row:
    """Compare the slowest of the larger databases with the smallest database."""
    smallest, *larger = medians
    worst = max(larger, key=lambda name: medians[name])
    return Row(
        f"{what}, {worst}",
        medians[worst],
        "ms",
        OF_SMALLEST * medians[smallest],
        f"at most {OF_SMALLEST:g} × the smallest",
        floor=medians[smallest],
        floor_name=smallest,
    )
