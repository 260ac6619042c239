"""Every measurement runs and returns figures. Their values depend on the machine: not tested."""

import math
from pathlib import Path

import msgspec
import pytest

from bench.registry import MEASUREMENTS
from bench.sizes import SMOKE


@pytest.mark.parametrize("name", sorted(MEASUREMENTS.keys() - {"counts"}))
async def test_measurement_finds_figures(name: str, tmp_path: Path) -> None:
    outcome = await MEASUREMENTS[name](tmp_path, SMOKE)
    assert outcome.rows
    for row in outcome.rows:
        figures = [x for x in (row.measured, row.limit, row.floor) if x is not None]
        assert all(math.isfinite(x) and x >= 0 for x in figures), row
    assert msgspec.json.encode(outcome)
