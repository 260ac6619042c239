"""Estimate of when a queued job starts."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from job_orchestrator.common.status import JobStatus
from job_orchestrator.server.jobs.waiting.estimate import (
    MAX_FOLLOWED_PER_TRIAL,
    MIN_TRIALS,
    ActiveJob,
    Capacity,
    expected_wait_s,
    jobs_first,
    wait_quantiles_s,
)
from job_orchestrator.server.jobs.waiting.forecasts import Forecast, Forecasts
from job_orchestrator.server.store.queue import WaitingUser
from sample_job import JOB

WIDE = Capacity(slots=None, of_service=10, of_user=5)
RUN_S = 300.0


@pytest.mark.parametrize(
    ("ahead", "capacity", "active", "expected_s"),
    [
        pytest.param(0, WIDE, [], 0, id="free"),
        pytest.param(5, WIDE, [], 300, id="limit of the user"),
        pytest.param(0, Capacity(2, 10, 5), [(60, True), (200, True)], 60, id="no free slot"),
        pytest.param(1, Capacity(2, 10, 5), [(60, True), (200, True)], 200, id="one ahead"),
        pytest.param(2, Capacity(2, 10, 5), [(60, True), (200, True)], 360, id="two ahead"),
        pytest.param(
            0, Capacity(1, 10, 5), [(60, True), (300, False)], 360, id="behind one at the client"
        ),
        pytest.param(0, Capacity(4, 2, 5), [(60, True), (50, True)], 50, id="limit of the service"),
        pytest.param(
            0, Capacity(4, 1, 5), [(60, True), (50, True)], 60, id="limit that was lowered"
        ),
    ],
)
def test_wait_follows_from_slots_limits_and_remaining_run_times(
    ahead: int, capacity: Capacity, active: list[tuple[float, bool]], expected_s: float
) -> None:
    jobs = [ActiveJob(left_s, runs) for left_s, runs in active]
    assert expected_wait_s(ahead, 0, RUN_S, capacity, jobs) == expected_s


def test_job_waits_for_an_end_of_its_own_user_at_the_users_limit() -> None:
    active = [ActiveJob(100, True, of_user=True), ActiveJob(20, True)]
    assert expected_wait_s(0, 0, RUN_S, Capacity(8, 10, 1), active) == 100


def test_jobs_of_other_services_take_slots_but_no_places_of_the_service() -> None:
    active = [ActiveJob(100, True, of_service=False)]
    assert expected_wait_s(0, 0, RUN_S, Capacity(2, 1, 1), active) == 0
    assert expected_wait_s(0, 0, RUN_S, Capacity(1, 1, 1), active) == 100


def user(
    number: int, *, queued: int, active: int = 0, served: int = 0, usage_s: float = 0.0
) -> WaitingUser:
    return WaitingUser(number, queued, active, served, head=number, usage_s=usage_s)


@pytest.mark.parametrize(
    ("ahead", "others", "expected"),
    [
        pytest.param(0, [], 0, id="alone"),
        pytest.param(0, [user(2, queued=9, served=1)], 1, id="one turn of a user served earlier"),
        pytest.param(0, [user(2, queued=9, served=8)], 0, id="before a user served later"),
        pytest.param(3, [user(2, queued=9, served=1)], 4, id="a turn for each job ahead"),
        pytest.param(3, [user(2, queued=2, served=1)], 2, id="no more than are queued"),
        pytest.param(3, [user(2, queued=9, active=2, served=1)], 2, id="turns that were taken"),
        pytest.param(0, [user(n, queued=1) for n in (2, 3, 4)], 3, id="several users"),
        pytest.param(4, [user(2, queued=9, usage_s=2.5 * RUN_S)], 2, id="who has used more"),
    ],
)
def test_jobs_of_other_users_start_first_as_their_turns_come(
    ahead: int, others: list[WaitingUser], expected: int
) -> None:
    own = user(1, queued=10, served=5)
    assert jobs_first(own, [own, *others], ahead, RUN_S) == expected


def test_jobs_of_other_users_take_slots_but_no_places_of_the_user() -> None:
    capacity = Capacity(slots=2, of_service=10, of_user=1)
    assert expected_wait_s(0, 3, RUN_S, capacity, []) == RUN_S
    assert expected_wait_s(1, 0, RUN_S, capacity, []) == RUN_S


def test_estimate_behind_very_many_jobs_grows_with_their_number() -> None:
    capacity = Capacity(slots=10, of_service=10, of_user=1000)
    assert expected_wait_s(0, 99_999, RUN_S, capacity, []) == pytest.approx(
        100_000 / 10 * RUN_S, rel=0.01
    )


def test_quantiles_of_a_wait_are_those_of_the_run_times() -> None:
    runs_s = [10.0] * 8 + [100.0] * 2
    active = [ActiveJob(10.0, runs=True)]
    half_s, most_s = wait_quantiles_s(0, 0, runs_s, Capacity(1, 9, 9), active)
    assert (half_s, most_s) == (10.0, 100.0)


def test_quantiles_of_a_running_job_are_drawn_from_longer_ones() -> None:
    active = [ActiveJob(5.0, runs=True, elapsed_s=95.0)]
    waits_s = wait_quantiles_s(0, 0, [10.0, 100.0], Capacity(1, 9, 9), active)
    assert waits_s == [5.0, 5.0]


class ReadRunTimes(list[float]):
    """Run times that count how often they are read, as a measure of the work."""

    reads = 0

    def __getitem__(self, index: Any) -> Any:
        self.reads += 1
        return super().__getitem__(index)

    def __iter__(self) -> Iterator[float]:
        self.reads += len(self)
        return super().__iter__()


@pytest.mark.parametrize("others", [50_000, 50_000_000])
def test_work_for_quantiles_is_bounded_however_many_jobs_wait(others: int) -> None:
    active = [ActiveJob(1.0, runs=True) for _ in range(2000)]
    runs_s = ReadRunTimes(float(n) for n in range(1, 51))
    half_s, most_s = wait_quantiles_s(1000, others, runs_s, Capacity(2000, 3000, 99), active)
    assert 0 < half_s <= most_s
    # In each of the fewest trials: all run times for each active job and one draw from them, and
    # one draw for each waiting job that is followed, at the limits of all and of the user.
    assert runs_s.reads <= MIN_TRIALS * (2000 * (50 + 1) + 2 * MAX_FOLLOWED_PER_TRIAL)


@pytest.mark.parametrize(("at", "within"), [(10.0, "p50"), (15.0, "p90"), (21.0, "later")])
def test_start_is_counted_by_its_first_forecast(at: float, within: str) -> None:
    seen: list[tuple[str, str]] = []
    forecasts = Forecasts(lambda service, within: seen.append((service, within)))
    job = replace(JOB, status=JobStatus.QUEUED, changed_at=0.0)
    forecasts.given(job, Forecast(10.0, 20.0))
    forecasts.given(job, Forecast(0.0, 1.0))
    forecasts.on_job_changed(job)
    started = replace(job, status=JobStatus.PROCESSING, changed_at=at)
    forecasts.on_job_changed(started)
    forecasts.on_job_changed(started)
    assert seen == [("s", within)]


def test_job_that_ends_in_the_queue_says_nothing_of_forecasts() -> None:
    seen: list[tuple[str, str]] = []
    forecasts = Forecasts(lambda service, within: seen.append((service, within)))
    forecasts.given(replace(JOB, status=JobStatus.QUEUED), Forecast(10.0, 20.0))
    forecasts.on_job_changed(replace(JOB, status=JobStatus.KILLED))
    forecasts.on_job_changed(replace(JOB, status=JobStatus.PROCESSING))
    assert seen == []
