"""How long a portal waits for a trivial job: from POST to the ZIP, one job after the other."""

import statistics
import time
from pathlib import Path

from bench.figures import percentile, spread
from bench.floors.disk import fsync_ms
from bench.floors.scripts import SCRIPT, spawn_ms
from bench.http import Connection, Form
from bench.outcome import Outcome, Row
from bench.services import pair
from bench.sizes import Size

OWN_MS = 8.0
FSYNCS = 3
"""A durable job flushes at least its files, its row, and its results."""
P99_OF_P50 = 3.0
WARM_UP = 10
FLOOR_SAMPLES = 20


async def measure(folder: Path, size: Size) -> Outcome:
    """Submit and wait, ``latency_jobs`` times a round; the floors before each round."""
    form = Form.of({"user_id": "1", "service": "bench"}, {"run.sh": SCRIPT.encode()})
    jobs: list[float] = []
    spawns: list[float] = []
    fsyncs: list[float] = []
    async with pair(folder) as services, Connection(services.server.url) as portal:
        for _ in range(WARM_UP):
            await portal.result(await portal.submit(form))
        for _ in range(size.rounds):
            spawns += [spawn_ms(folder) for _ in range(FLOOR_SAMPLES)]
            fsyncs += [fsync_ms(folder) for _ in range(FLOOR_SAMPLES)]
            for _ in range(size.latency_jobs):
                begun = time.perf_counter()
                await portal.result(await portal.submit(form))
                jobs.append((time.perf_counter() - begun) * 1000)
    spawn, fsync = statistics.median(spawns), statistics.median(fsyncs)
    p50, p99 = statistics.median(jobs), percentile(jobs, 99)
    return Outcome(
        [
            Row(
                "trivial job, POST to ZIP, p50",
                p50,
                "ms",
                OWN_MS + FSYNCS * fsync,
                f"at most {OWN_MS:g} ms + {FSYNCS} fsyncs",
                at_most=True,
                floor=spawn + FSYNCS * fsync,
                floor_name=f"`bash run.sh` + {FSYNCS} fsyncs",
            ),
            Row(
                "trivial job, POST to ZIP, p99",
                p99,
                "ms",
                P99_OF_P50 * p50,
                f"at most {P99_OF_P50:g} × p50",
                at_most=True,
                floor=percentile(spawns, 99) + FSYNCS * percentile(fsyncs, 99),
                floor_name=f"p99 of `bash run.sh` + {FSYNCS} × p99 of fsync",
            ),
        ],
        {
            "job_ms": spread(jobs) | {"samples": jobs},
            "spawn_ms": spread(spawns),
            "fsync_ms": spread(fsyncs),
        },
    )
