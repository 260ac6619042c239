"""Usage of slots decays, and needs no record of the single jobs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job_orchestrator.server.store.usage import Usage

DAY = 86_400.0


def test_usage_grows_by_the_slots_that_are_held() -> None:
    assert Usage(0.0, 3, at=100.0).seconds_at(110.0, 7 * DAY) == pytest.approx(30.0, rel=1e-4)


def test_usage_counts_half_after_the_half_life() -> None:
    assert Usage(800.0, 0, at=0.0).seconds_at(DAY, DAY) == pytest.approx(400.0)
    assert Usage(800.0, 0, at=0.0).seconds_at(3 * DAY, DAY) == pytest.approx(100.0)


def test_nothing_is_remembered_without_a_half_life() -> None:
    assert Usage(800.0, 3, at=0.0).seconds_at(1.0, 0.0) == 0.0


def test_usage_does_not_change_if_the_clock_is_set_back() -> None:
    assert Usage(800.0, 3, at=1000.0).seconds_at(10.0, DAY) == 800.0


@given(
    st.floats(0, 1e7),
    st.integers(0, 50),
    st.floats(0, 1e6),
    st.floats(0, 1e6),
    st.floats(1.0, 1e8),
)
def test_usage_does_not_depend_on_when_it_is_settled(
    seconds: float, slots: int, first_s: float, second_s: float, half_life_s: float
) -> None:
    usage, end = Usage(seconds, slots, at=0.0), first_s + second_s
    settled = usage.holding(slots, first_s, half_life_s)
    directly = usage.seconds_at(end, half_life_s)
    assert settled.seconds_at(end, half_life_s) == pytest.approx(directly, rel=1e-6, abs=1e-3)
