"""Load: a meaningful figure at any time, at no cost for a request."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job_orchestrator.client.payloads.load import CpuTimes, LoadMeter, cpu_percent
from job_orchestrator.client.payloads.store import open_payloads
from job_orchestrator.common.messages.payloads import ClientLimits, LoadEvent

seconds = st.floats(0, 1e9)


@given(seconds, seconds, seconds, seconds)
def test_cpu_figure_is_a_percentage_for_any_times_of_the_kernel(
    busy: float, idle: float, later_busy: float, later_idle: float
) -> None:
    earlier = CpuTimes(busy, busy + idle)
    later = CpuTimes(later_busy, later_busy + later_idle)
    assert 0 <= cpu_percent(earlier, later) <= 100


def test_cpu_figure_is_the_mean_since_the_previous_reading() -> None:
    assert cpu_percent(CpuTimes(10, 100), CpuTimes(15, 120)) == 25.0
    assert cpu_percent(CpuTimes(10, 100), CpuTimes(10, 100)) == 0.0


async def test_reading_right_after_another_keeps_its_figure() -> None:
    now = CpuTimes(busy=50.0, total=100.0)
    async with open_payloads() as store:
        meter = LoadMeter(store, 1, lambda _: None, cpu_times=lambda: now)
        await meter.run_pass()
        first = meter.reading.cpu
        now = CpuTimes(now.busy, now.total + 0.1)
        await meter.run_pass()
        assert meter.reading.cpu == first
        now = CpuTimes(now.busy + 1, now.total + 4)
        await meter.run_pass()
    assert meter.reading.cpu == pytest.approx(100 / 4.1, abs=0.1)


async def test_reading_counts_slots_and_payloads_and_is_published() -> None:
    published: list[LoadEvent] = []
    async with open_payloads() as store:
        limits = ClientLimits(1000, 0, 60.0)
        meter = LoadMeter(store, 7, published.append, limits=limits)
        for payload in (1, 2, 3):
            await store.add(payload, f"u{payload}", None)
        await store.start(1)
        await meter.run_pass()
    assert published == [meter.reading]
    assert (meter.reading.slots, meter.reading.running, meter.reading.waiting) == (7, 1, 2)
    assert meter.reading.limits == limits
    assert 0 < meter.reading.memory <= 100
