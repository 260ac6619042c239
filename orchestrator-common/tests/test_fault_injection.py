"""Fault injection: faults are triggered at their point and as often as requested, else never."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from job_orchestrator.common.errors import StartupError
from job_orchestrator.common.runtime import fault_injection as faults
from job_orchestrator.common.runtime.fault_injection import Point, reach


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    faults.arm({})


def _failures(point: Point, arrivals: int) -> list[int]:
    failed = []
    for number in range(1, arrivals + 1):
        try:
            reach(point)
        except OSError:
            failed.append(number)
    return failed


def test_no_fault_is_triggered_by_default() -> None:
    faults.arm({"PATH": "/bin"})
    assert [_failures(point, 3) for point in Point] == [[]] * len(Point)
    assert faults.database_class() is sqlite3.Connection


def test_fault_is_triggered_at_the_nth_arrival_at_its_point_only() -> None:
    faults.arm({"JO_FAULT": "server.claimed:2:fail, disk.flush:3*"})
    assert _failures(Point.SERVER_CLAIMED, 6) == [2]
    assert _failures(Point.DISK_FLUSH, 7) == [3, 6]
    assert _failures(Point.SERVER_SENT, 6) == []


def test_failing_statement_has_no_effect() -> None:
    faults.arm({"JO_FAULT": "database:2"})
    with closing(sqlite3.connect(":memory:", factory=faults.database_class())) as database:
        database.execute("CREATE TABLE t (x)")
        with pytest.raises(sqlite3.OperationalError, match="disk I/O error"):
            database.execute("INSERT INTO t VALUES (1)")
        assert database.execute("SELECT count(*) FROM t").fetchone() == (0,)


@pytest.mark.parametrize("spelled", ["nowhere", "server.sent:0", "server.sent:1:burn", "x y"])
def test_malformed_fault_is_a_startup_error_that_names_the_variable(spelled: str) -> None:
    with pytest.raises(StartupError, match="JO_FAULT holds"):
        faults.arm({"JO_FAULT": spelled})
