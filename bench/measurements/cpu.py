"""CPU time of a trivial job, by process: the figure that holds on a busy machine."""

import resource
import statistics
from contextlib import AsyncExitStack
from pathlib import Path

from bench.counting.cpu import cpu_seconds
from bench.floors.scripts import SCRIPT, per_second
from bench.http import Connection, Form
from bench.measurements.throughput import FETCHERS, SUBMITTERS, USERS, submit_and_fetch
from bench.outcome import Outcome, Row
from bench.services import pair
from bench.sizes import Size

OWN_MS = 5.5
SLOTS = 10


async def measure(folder: Path, size: Size) -> Outcome:
    """Run ``throughput_jobs`` jobs a round. The floor is the CPU time of ``bash run.sh``."""
    floors: list[float] = []
    rounds: list[dict[str, float]] = []
    forms = [
        Form.of({"user_id": str(user), "service": "bench"}, {"run.sh": SCRIPT.encode()})
        for user in range(USERS)
    ]
    async with AsyncExitStack() as stack:
        services = await stack.enter_async_context(pair(folder, slots=SLOTS))
        url = services.server.url
        submitters = [await stack.enter_async_context(Connection(url)) for _ in range(SUBMITTERS)]
        fetchers = [await stack.enter_async_context(Connection(url)) for _ in range(FETCHERS)]
        await submit_and_fetch(submitters, fetchers, forms, USERS)
        for _ in range(size.rounds):
            floors.append(_script_ms(folder, size.spawns))
            before = {name: cpu_seconds(each) for name, each in services.by_name().items()}
            await submit_and_fetch(submitters, fetchers, forms, size.throughput_jobs)
            found: dict[str, float] = {}
            for name, each in services.by_name().items():
                used = cpu_seconds(each).since(before[name])
                found[name] = used.own * 1000 / size.throughput_jobs
                found[f"{name}: scripts"] = used.started * 1000 / size.throughput_jobs
            rounds.append(found)
    medians = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
    floor = statistics.median(floors)
    scripts = medians["jo-client: scripts"]
    return Outcome(
        [
            Row("CPU of jo-server for a trivial job", medians["jo-server"], "ms"),
            Row("CPU of jo-client for a trivial job", medians["jo-client"], "ms"),
            Row(
                "CPU of the script and its start",
                scripts,
                "ms",
                floor=floor,
                floor_name="`bash run.sh`",
            ),
            Row(
                "CPU of both services and of the start of the script, a trivial job",
                max(medians["jo-server"] + medians["jo-client"] + scripts - floor, 0.0),
                "ms",
                OWN_MS,
                f"at most {OWN_MS:g} ms",
                at_most=True,
            ),
        ],
        {"ms_per_job": rounds, "bash_ms": floors},
    )


def _script_ms(folder: Path, runs: int) -> float:
    """Return the CPU time of ``bash run.sh``, in milliseconds."""
    parallel = min(SLOTS, runs)

    def used() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    before = used()
    per_second(folder, runs, parallel)
    return (used() - before) * 1000 / (runs // parallel * parallel)
