"""Comparison of scheduling policies on a seeded trace in the style of a portal.

Run it as ``python -m bench.policies``. Every policy is replayed by the product's own function.
"""

import random
from collections.abc import Collection, Iterator, Mapping
from functools import partial

from job_orchestrator.server.model import Order
from job_orchestrator.server.scheduling.base import Limits
from job_orchestrator.server.scheduling.rules import policies
from job_orchestrator.server.scheduling.simulation.replay import Replay
from job_orchestrator.server.scheduling.simulation.report import Figures, figures_of, table
from job_orchestrator.server.scheduling.simulation.trace import TraceJob, in_order

DAY_S = 86_400.0
SLOTS = {"check": 8, "dock": 16, "simulate": 48}
UNLIMITED = 1_000_000_000
HALF_LIFE_S = 7 * DAY_S
SERVICES = {"check": (300.0, 0.8), "dock": (1800.0, 1.0), "simulate": (14_400.0, 0.9)}
"""Median run time in seconds, and its spread (sigma of the logarithm), of each service."""


def portal_trace(load: float, seed: int = 1, days: int = 14) -> list[TraceJob]:
    """Return the jobs of a portal, with ``load`` times the work that the slots can do.

    Light users come every few days, a course every Tuesday. Six heavy users send hundreds of jobs
    in one go, as many as are missing to the load.
    """
    draw = random.Random(seed)  # noqa: S311 (the same trace in each run)
    jobs = [*_light(draw, days), *_course(draw, days)]
    for service in SERVICES:
        work_s = sum(job.run_s for job in jobs if job.service == service)
        jobs += _heavy(draw, service, load * SLOTS[service] * days * DAY_S - work_s, days)
    return in_order(jobs)


def _run_s(draw: random.Random, service: str) -> float:
    median_s, sigma = SERVICES[service]
    return min(median_s * draw.lognormvariate(0.0, sigma), 10 * median_s)


def _light(draw: random.Random, days: int) -> Iterator[TraceJob]:
    """Yield the jobs of 120 users who come every few days with a handful of jobs."""
    for user in range(120):
        at = draw.uniform(0, 4) * DAY_S
        while at < days * DAY_S:
            service = draw.choices([*SERVICES], [5, 3, 1])[0]
            for _ in range(draw.randint(1, 6)):
                yield TraceJob(user, at + draw.uniform(0, 600), _run_s(draw, service), service)
            at += draw.expovariate(1 / (3 * DAY_S))


def _course(draw: random.Random, days: int) -> Iterator[TraceJob]:
    """Yield the jobs of a course of 60 students: two hours on each Tuesday."""
    for day in range(1, days, 7):
        for student in range(2000, 2060):
            for _ in range(draw.randint(1, 5)):
                at = day * DAY_S + 10 * 3600 + draw.uniform(0, 7200)
                yield TraceJob(student, at, _run_s(draw, "check"), "check")


def _heavy(draw: random.Random, service: str, work_s: float, days: int) -> Iterator[TraceJob]:
    """Yield jobs of six users, hundreds in one go, with so much work in all."""
    while work_s > 0:
        user, at = draw.randrange(1000, 1006), draw.uniform(0, days) * DAY_S
        for _ in range(draw.randint(100, 400)):
            run_s = _run_s(draw, service)
            work_s -= run_s
            yield TraceJob(user, at + draw.uniform(0, 60), run_s, service)
            if work_s <= 0:
                return


def compare(jobs: list[TraceJob], only: Collection[str] = ()) -> Mapping[str, Figures]:
    """Replay jobs by each policy, or by some. A hard cap is an eighth of a service's slots."""
    orders, found = policies(), {}
    for name, order, capped, borrows, half_life_s in (
        ("first come, first served", Order.FIFO, False, False, 0.0),
        ("fewest active first, hard cap", Order.FAIR, True, False, 0.0),
        ("fewest active first, no cap", Order.FAIR, False, False, 0.0),
        ("least usage first, borrowing", Order.FAIR, True, True, HALF_LIFE_S),
    ):
        if only and name not in only:
            continue
        limits_at = partial(_limits, capped, UNLIMITED if borrows else 0)
        replay = Replay(dict.fromkeys(SERVICES, orders[order]), limits_at, SLOTS, half_life_s)
        found[name] = figures_of(jobs, replay.run(jobs))
    return found


def _limits(capped: bool, burst: int, service: str, run_s: float, now: float) -> Limits:
    per_user = max(SLOTS[service] // 8, 2) if capped else UNLIMITED
    return Limits(per_user, UNLIMITED, burst=burst, run_s=run_s)


if __name__ == "__main__":
    for load in (0.9, 1.1):
        print(f"\nLoad {load}:\n\n{table(compare(portal_trace(load)))}", end="")  # noqa: T201
