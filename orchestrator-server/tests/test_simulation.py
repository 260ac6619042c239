"""Replay of traces: the trace format, the virtual clock, the figures, the command."""

import asyncio
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner

from job_orchestrator.common.status import JobStatus
from job_orchestrator.server.cli.main import main
from job_orchestrator.server.scheduling.arrival import FirstCome
from job_orchestrator.server.scheduling.base import Limits, SchedulingPolicy
from job_orchestrator.server.scheduling.fair_share import FairShare
from job_orchestrator.server.scheduling.simulation.replay import Outcome, Replay
from job_orchestrator.server.scheduling.simulation.report import figures_of, light_users, svg, table
from job_orchestrator.server.scheduling.simulation.trace import (
    TraceInvalid,
    TraceJob,
    at_load,
    in_order,
    read_swf,
    write_swf,
)
from job_orchestrator.server.store.sqlite.store import open_store
from stores import Clock, claim

JOBS = [TraceJob(1, 0.0, 100.0)] * 4 + [TraceJob(2, 1.0, 50.0)]


def replay(jobs: list[TraceJob], policy: SchedulingPolicy, slots: int, limits: Limits) -> Outcome:
    services = {job.service for job in jobs}
    return Replay(
        dict.fromkeys(services, policy), lambda *_: limits, dict.fromkeys(services, slots), 1e6
    ).run(jobs)


def test_replay_starts_jobs_when_slots_are_free() -> None:
    outcome = replay(JOBS, FirstCome(), 2, Limits(99, 99))
    assert outcome.waits_s == [0, 0, 100, 100, 199]
    assert (outcome.used_s, outcome.span_s, outcome.idle_s) == (450, 250, 0)


def test_replay_serves_the_user_who_has_used_least() -> None:
    assert replay(JOBS, FairShare(), 2, Limits(99, 99)).waits_s == [0, 0, 100, 150, 99]


def test_replay_counts_slots_that_a_limit_keeps_idle() -> None:
    outcome = replay(JOBS[:4], FairShare(), 2, Limits(1, 99))
    assert outcome.waits_s == [0, 100, 200, 300]
    # One slot is idle as long as a job waits.
    assert outcome.idle_s == 300
    assert replay(JOBS[:4], FairShare(), 2, Limits(1, 99, burst=9)).idle_s == 0


def test_replay_ends_although_jobs_may_never_start() -> None:
    assert replay(JOBS, FairShare(), 2, Limits(0, 99)).span_s == 1.0


def test_services_have_slots_of_their_own() -> None:
    jobs = [TraceJob(1, 0.0, 10.0, "a"), TraceJob(1, 0.0, 10.0, "b"), TraceJob(1, 0.0, 10.0, "b")]
    assert replay(jobs, FairShare(), 1, Limits(9, 9)).waits_s == [0, 0, 10]


def test_trace_is_read_as_it_was_written() -> None:
    assert read_swf(write_swf(JOBS).splitlines()) == JOBS


def test_trace_leaves_out_jobs_without_user_or_run_time() -> None:
    line = "1 {submit} -1 {run} 1 -1 -1 -1 -1 -1 -1 {user} -1 -1 -1 -1 -1 -1"
    lines = [
        "; comment",
        "",
        line.format(submit=100, run=5, user=3),
        line.format(submit=90, run=-1, user=3),
        line.format(submit=90, run=5, user=-1),
        line.format(submit=95, run=7, user=4),
    ]
    assert read_swf(lines) == [TraceJob(4, 0.0, 7.0), TraceJob(3, 5.0, 5.0)]


@pytest.mark.parametrize("line", ["1 2 3", "1 x -1 5 1 -1 -1 -1 -1 -1 -1 3 -1 -1 -1 -1 -1 -1"])
def test_trace_with_a_mistake_is_refused_with_the_line(line: str) -> None:
    with pytest.raises(TraceInvalid, match="Line 2"):
        read_swf(["; comment", line])


def test_load_is_the_work_that_arrives_per_slot() -> None:
    jobs = in_order([TraceJob(1, 1000.0 * n, 500.0) for n in range(11)])
    changed = at_load(jobs, slots=2, load=1.1)
    work_s = sum(job.run_s for job in changed)
    assert work_s / (changed[-1].arrival_s * 2) == pytest.approx(1.1)


def test_figures_are_those_of_classes_of_users() -> None:
    assert light_users(JOBS) == {2}
    found = figures_of(JOBS, replay(JOBS, FirstCome(), 2, Limits(99, 99)))
    assert found.waits_s == {
        "light users": (199, 199),
        "heavy users": (0, 100),
        "all": (100, 199),
    }
    assert found.used == pytest.approx(450 / 500)
    assert 0 < found.jain < 1
    text = table({"a <policy>": found})
    assert "| a <policy> | 0.06 | 0.06 | 0.03 | 0.06 | 90% | 0 |" in text
    assert ET.fromstring(svg({"a <policy>": found})).tag.endswith("svg")  # noqa: S314 (own text)


def run(*arguments: str, environment: Mapping[str, str] | None = None) -> str:
    result = CliRunner().invoke(main, ["simulate", *arguments], env=environment)
    assert result.exit_code == 0, result.output
    return result.output


def test_command_replays_a_trace_with_a_policy_file(tmp_path: Path) -> None:
    trace, policy, chart = tmp_path / "t.swf", tmp_path / "policy.toml", tmp_path / "chart.svg"
    trace.write_text(write_swf(JOBS))
    policy.write_text("[users.2]\nmax_runs_per_user = 1\nweight = 10\n")
    output = run(
        "--trace", str(trace), "--slots", "2", "--policy-file", str(policy), "--svg", str(chart)
    )
    assert output.count("\n") == 4
    assert "| fair, as given |" in output
    assert chart.read_text().startswith("<svg")


def test_command_replays_the_history_of_the_server(tmp_path: Path) -> None:
    path, clock = tmp_path / "db.sqlite", Clock(1000.0)

    async def work() -> None:
        async with open_store(path, clock) as store:
            for number in range(3):
                await store.create(f"u{number}", number, "x")
            for job in await claim(store, 2):
                job = await store.transition(job, JobStatus.SUBMITTED, "", dest_id=1)
                await store.transition(job, JobStatus.RUNNING, "")
                clock.at += 10
                await store.transition(job, JobStatus.COMPLETED, "")

    asyncio.run(work())
    output = run("--slots", "1", environment={"DB_PATH": str(path)})
    assert "| first come, first served |" in output


def test_command_refuses_what_it_can_not_replay(tmp_path: Path) -> None:
    trace = tmp_path / "t.swf"
    trace.write_text("1 2 3\n")
    result = CliRunner().invoke(main, ["simulate", "--trace", str(trace), "--slots", "2"])
    assert result.exit_code == 1
    assert "Line 1" in result.output
