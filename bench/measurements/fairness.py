"""Wait of one user's job behind many of another user, with slots fewer than the quota."""

import asyncio
import statistics
import time
from pathlib import Path

from bench import hops
from bench.http import Connection, Form
from bench.outcome import Outcome, Row
from bench.services import pair
from bench.sizes import Size

SLOTS = 2
JOBS_OF_A = 8
QUOTA = 10
IDEAL_FACTOR = 1.05
OWN_MS = 50.0


async def measure(folder: Path, size: Size) -> Outcome:
    """Submit eight jobs of user A, then one of user B.

    An ideal scheduler starts the job of B at the first end of a job of A.
    """
    script = f"exec sleep {size.fairness_s}\n".encode()
    forms = [
        Form.of({"user_id": str(user), "service": "bench"}, {"run.sh": script}) for user in (1, 2)
    ]
    quota = {"SERVICE_BENCH_RUNS_PER_USER": str(QUOTA), "SERVICE_BENCH_MAX_RUNS": str(QUOTA)}
    waits: list[float] = []
    ideals: list[float] = []
    async with (
        pair(folder, slots=SLOTS, server=quota) as services,
        Connection(services.server.url) as portal,
    ):
        for _ in range(size.fairness_rounds):
            jobs = [await portal.submit(forms[0]) for _ in range(JOBS_OF_A)]
            await portal.until_running(jobs[0])
            await asyncio.sleep(size.fairness_s / 10)
            submitted = time.time()
            job_of_b = await portal.submit(forms[1])
            ends = [hops.script(await portal.result(job))[1] for job in jobs]
            started, _ = hops.script(await portal.result(job_of_b))
            waits.append((started - submitted) * 1000)
            ideals.append((min(ends) - submitted) * 1000)
    ideal = statistics.median(ideals)
    return Outcome(
        [
            Row(
                f"wait of B's job behind A's {JOBS_OF_A}, {SLOTS} slots",
                statistics.median(waits),
                "ms",
                IDEAL_FACTOR * ideal + OWN_MS,
                f"at most {IDEAL_FACTOR:g} × ideal + {OWN_MS:g} ms",
                at_most=True,
                floor=ideal,
                floor_name="ideal scheduler",
            )
        ],
        {"waits_ms": waits, "ideal_ms": ideals},
    )
