"""Estimate of when a queued job starts."""

import pytest

from job_orchestrator.server.jobs.estimate import ActiveJob, Capacity, expected_wait_s

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
    assert expected_wait_s(ahead, RUN_S, capacity, jobs) == expected_s


def test_job_waits_for_an_end_of_its_own_user_at_the_users_limit() -> None:
    active = [ActiveJob(100, True, of_user=True), ActiveJob(20, True)]
    assert expected_wait_s(0, RUN_S, Capacity(8, 10, 1), active) == 100


def test_jobs_of_other_services_take_slots_but_no_places_of_the_service() -> None:
    active = [ActiveJob(100, True, of_service=False)]
    assert expected_wait_s(0, RUN_S, Capacity(2, 1, 1), active) == 0
    assert expected_wait_s(0, RUN_S, Capacity(1, 1, 1), active) == 100
