"""The command ``jo-server simulate``."""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import click

from job_orchestrator.common.errors import DomainError
from job_orchestrator.common.protocol.durations import parse_duration_s
from job_orchestrator.server.model import Order
from job_orchestrator.server.scheduling.base import Limits, SchedulingPolicy
from job_orchestrator.server.scheduling.policy_file import PolicyFile, parse_policy
from job_orchestrator.server.scheduling.rules import Terms, policies
from job_orchestrator.server.scheduling.simulation.history import read_history
from job_orchestrator.server.scheduling.simulation.replay import Replay
from job_orchestrator.server.scheduling.simulation.report import Figures, figures_of, svg, table
from job_orchestrator.server.scheduling.simulation.trace import (
    TraceJob,
    at_load,
    in_order,
    read_swf,
)
from job_orchestrator.server.settings.server import paths_of_process

UNLIMITED = 1_000_000_000


@click.command()
@click.option(
    "--trace",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Trace in Standard Workload Format; default: the jobs in DB_PATH.",
)
@click.option("--slots", type=click.IntRange(1), required=True, help="Slots of each service.")
@click.option("--load", type=click.FloatRange(0.01, 100), help="Change the arrivals to this load.")
@click.option(
    "--policy",
    type=click.Choice([order.value for order in Order]),
    default="fair",
    show_default=True,
    help="Order of the jobs.",
)
@click.option("--half-life", default="7d", show_default=True, help="FAIR_HALF_LIFE.")
@click.option("--runs-per-user", type=click.IntRange(1), help="Default: no limit.")
@click.option("--runs-per-user-burst", type=click.IntRange(0), default=0, help="With idle slots.")
@click.option("--borrow-reserve", type=click.IntRange(0), default=0, help="BORROW_RESERVE.")
@click.option(
    "--policy-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Policy file; its dates count from the first job of DB_PATH, or from 1970.",
)
@click.option("--svg", "chart", type=click.Path(path_type=Path), help="Write a chart to this file.")
@click.pass_context
def simulate(
    context: click.Context,
    trace: Path | None,
    slots: int,
    load: float | None,
    policy: str,
    half_life: str,
    runs_per_user: int | None,
    runs_per_user_burst: int,
    borrow_reserve: int,
    policy_file: Path | None,
    chart: Path | None,
) -> None:
    """Replay a trace of jobs with other settings, and print what the waits would have been.

    The jobs are replayed on a virtual clock by the function that decides in the running server.
    The table compares the given policy with first come, first served. Waits are in hours; light
    users are the half of the users whose jobs ran for the shortest time.
    """
    half_life_s = parse_duration_s(half_life)
    if half_life_s is None:
        raise click.UsageError("--half-life must be a time, such as 7d")
    try:
        begin, jobs = _jobs(trace, context.obj)
        file = parse_policy(policy_file.read_text("utf-8")) if policy_file else None
    except DomainError as error:
        raise click.ClickException(str(error)) from error
    if not jobs:
        raise click.ClickException("There are no jobs that have run")
    if load is not None:
        jobs = at_load(jobs, slots * len({job.service for job in jobs}), load)
    services = {job.service for job in jobs}
    terms_at = _terms_at(file)
    guaranteed = runs_per_user or UNLIMITED

    def limits_at(service: str, run_s: float, now: float) -> Limits:
        terms = terms_at(begin + now)
        return Limits(
            guaranteed,
            UNLIMITED,
            burst=runs_per_user_burst,
            reserve=borrow_reserve,
            users=terms.users,
            groups=terms.groups,
            run_s=run_s,
        )

    def replayed(chosen: SchedulingPolicy, half_life_s: float) -> Figures:
        replay = Replay(
            dict.fromkeys(services, chosen), limits_at, dict.fromkeys(services, slots), half_life_s
        )
        return figures_of(jobs, replay.run(jobs))

    by_order = policies()
    results = {"first come, first served": replayed(by_order[Order.FIFO], 0.0)}
    results[f"{policy}, as given"] = replayed(by_order[Order(policy)], half_life_s)
    click.echo(table(results), nl=False)
    if chart is not None:
        chart.write_text(svg(results), "utf-8")


def _jobs(trace: Path | None, flags: Mapping[str, str | None]) -> tuple[float, list[TraceJob]]:
    """Return the time of the first job, and all jobs from then on."""
    if trace is not None:
        with trace.open(encoding="utf-8", errors="replace") as lines:
            return 0.0, read_swf(lines)
    db_path, _ = paths_of_process(flags)
    jobs = read_history(db_path)
    begin = min((job.arrival_s for job in jobs), default=0.0)
    return begin, in_order(jobs)


def _terms_at(file: PolicyFile | None) -> Callable[[float], Terms]:
    """Return a function from a time to the terms of the hour that it is in."""
    if file is None:
        return lambda _: Terms()
    of_hour = cache(lambda hour: file.terms_at(hour * 3600.0))
    return lambda now: of_hour(now // 3600)
