"""The clock that does not jump."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from job_orchestrator.common.runtime.clock import MAX_AHEAD_S, SteadyClock


class Machine:
    """Clocks of a machine, which a test sets."""

    def __init__(self) -> None:
        self.wall = 1_700_000_000.0
        self.monotonic = 50.0

    def passes(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds

    def clock(self) -> SteadyClock:
        return SteadyClock(lambda: self.wall, lambda: self.monotonic)


def test_clock_is_the_wall_clock_while_that_is_not_set() -> None:
    machine = Machine()
    clock = machine.clock()
    for _ in range(5):
        machine.passes(1000.5)
        assert clock() == pytest.approx(machine.wall, abs=1e-3)


@pytest.mark.parametrize("jump_s", [3600.0, -3600.0])
def test_jump_of_the_wall_clock_is_logged_once_and_not_followed(
    jump_s: float, caplog: pytest.LogCaptureFixture
) -> None:
    machine = Machine()
    clock = machine.clock()
    before = clock()
    machine.wall += jump_s
    assert clock() == before
    machine.passes(100)
    assert 89 <= clock() - before <= 111
    assert [record.message for record in caplog.records] == [
        f"The clock of this machine was set by {jump_s:+.0f} s; ages and time-outs do not follow"
    ]


@pytest.mark.parametrize("jump_s", [600.0, -600.0])
def test_clock_approaches_a_wall_clock_that_was_set(jump_s: float) -> None:
    machine = Machine()
    clock = machine.clock()
    machine.wall += jump_s
    for _ in range(700):
        machine.passes(10)
        clock()
    assert clock() == pytest.approx(machine.wall, abs=1e-3)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(-1e6, 1e6)), max_size=20))
def test_clock_never_runs_backwards(steps: list[tuple[float, float]]) -> None:
    machine = Machine()
    clock = machine.clock()
    last = clock()
    for seconds, jump_s in steps:
        machine.passes(seconds)
        machine.wall += jump_s
        assert clock() >= last
        last = clock()


def test_clock_goes_on_after_the_last_record_of_the_previous_run() -> None:
    machine = Machine()
    clock = machine.clock()
    clock.continue_after(machine.wall + 600)
    assert clock() == machine.wall + 600
    machine.passes(10)
    assert clock() == pytest.approx(machine.wall + 599, abs=1e-3), "it waits for the wall clock"


@pytest.mark.parametrize("ahead_s", [-1e6, MAX_AHEAD_S + 1])
def test_earlier_and_absurd_records_have_no_effect(ahead_s: float) -> None:
    machine = Machine()
    clock = machine.clock()
    clock.continue_after(machine.wall + ahead_s)
    assert clock() == machine.wall
