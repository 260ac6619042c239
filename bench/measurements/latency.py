"""Latency of a trivial job, from POST to the ZIP, one job after the other."""

import statistics
import time
from dataclasses import dataclass
from pathlib import Path

from bench import hops
from bench.figures import percentile, spread
from bench.floors.disk import fsync_ms
from bench.floors.scripts import SCRIPT, spawn_ms
from bench.http import Connection, Form
from bench.outcome import Outcome, Row
from bench.services import pair
from bench.sizes import Size

OWN_MS = 8.0
FSYNCS = 3
"""A durable job needs at least three: for its files, its row and its results."""
P99_OF_P50 = 3.0
WARM_UP = 10
FLOOR_SAMPLES = 20


@dataclass(frozen=True)
class TimedJob:
    """Times of one job as observed by its portal, in seconds since the epoch."""

    id: int
    posted: float
    accepted: float
    received: float
    results: bytes

    @property
    def ms(self) -> float:
        """Milliseconds from POST to ZIP."""
        return (self.received - self.posted) * 1000


async def measure(folder: Path, size: Size) -> Outcome:
    """Run ``latency_jobs`` jobs a round. The floors are measured before each round."""
    form = Form.of({"user_id": "1", "service": "bench"}, {"run.sh": SCRIPT.encode()})
    seen: list[TimedJob] = []
    spawns: list[float] = []
    fsyncs: list[float] = []
    async with pair(folder) as services, Connection(services.server.url) as portal:
        for _ in range(WARM_UP):
            await _run(portal, form)
        for _ in range(size.rounds):
            spawns += [spawn_ms(folder) for _ in range(FLOOR_SAMPLES)]
            fsyncs += [fsync_ms(folder) for _ in range(FLOOR_SAMPLES)]
            for _ in range(size.latency_jobs):
                seen.append(await _run(portal, form))
        median_job = sorted(seen, key=lambda job: job.ms)[len(seen) // 2]
        time_line = _time_line(median_job, services.server.folder / "db.sqlite")
    jobs = [job.ms for job in seen]
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
            "floor_ms": spawn + FSYNCS * fsync,
            "time_line_ms": time_line,
        },
    )


async def _run(portal: Connection, form: Form) -> TimedJob:
    posted = time.time()
    job_id = await portal.submit(form)
    accepted = time.time()
    results = await portal.result(job_id)
    return TimedJob(job_id, posted, accepted, time.time(), results)


def _time_line(job: TimedJob, database: Path) -> dict[str, tuple[float, float]]:
    """Return begin and end of each hop in ms since the POST.

    Hops may overlap: the client starts the script while the server still records the submission.
    """
    states = hops.states(database, job.id)
    started, ended = hops.script(job.results)
    marks = {
        "upload, until the 201": (job.posted, job.accepted),
        "to the client": (states["Processing"], states["Submitted"]),
        "run.sh": (started, ended),
        "packed and fetched": (ended, states["Completed"]),
        "download": (states["Completed"], job.received),
    }
    return {
        hop: ((begin - job.posted) * 1000, (end - job.posted) * 1000)
        for hop, (begin, end) in marks.items()
    }
