"""The schedule of delays between retries."""

from hypothesis import given
from hypothesis import strategies as st

from job_orchestrator.common.runtime.backoff import Backoff


def test_delay_beyond_the_schedule_stays_at_the_last_one() -> None:
    backoff = Backoff((5.0, 30.0, 120.0), jitter=0.0)

    assert [backoff.delay_s(failures) for failures in (1, 2, 3, 4, 1000)] == [
        5.0,
        30.0,
        120.0,
        120.0,
        120.0,
    ]


def test_exponential_delay_doubles_up_to_its_maximum() -> None:
    backoff = Backoff.exponential(0.5, 3.0, jitter=0.0)

    assert backoff.delays_s == (0.5, 1.0, 2.0, 3.0)


@given(failures=st.integers(1, 10_000), part=st.floats(0.0, 1.0))
def test_jitter_only_shortens_a_delay_and_by_no_more_than_its_part(
    failures: int, part: float
) -> None:
    steady, jittered = (Backoff.exponential(1.0, 60.0, jitter=jitter) for jitter in (0.0, 0.2))

    delay_s = steady.delay_s(failures)

    assert 0.8 * delay_s - 1e-9 <= jittered.delay_s(failures, lambda: part) <= delay_s
