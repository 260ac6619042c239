"""Output of results: the table, the page of the documentation, the chart."""

from pathlib import Path

from click.testing import CliRunner

from bench import __main__ as command
from bench import chart, report
from bench.sizes import SMOKE

PAGE = """before
<!-- measured: begin (written by `make bench`) -->
old
<!-- measured: end -->
after
"""
MACHINE = {
    "at": "2026-01-01T00:00:00Z",
    "cores": 2,
    "cpu": "Z80",
    "memory_gib": 1.5,
    "file_system": "ext4",
    "kernel": "6.1",
    "python": "3.12.1",
    "python_optimized": True,
    "load_average": [0.1, 0.1, 0.1],
}
ROW = {
    "what": "latency",
    "measured": 7.123,
    "unit": "ms",
    "limit": 8.0,
    "rule": "at most",
    "floor": 3.5,
    "floor_name": "bash",
    "before": 9.1,
    "ratio": 2.035,
    "met": True,
}


def test_table_replaces_only_the_text_between_the_markers(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text(PAGE)
    result = {"machine": MACHINE, "measurements": {"latency": {"rows": [ROW]}}}
    for _ in range(2):  # the second run replaces its own text
        report.write_into(page, result, "performance.svg")
    text = page.read_text()
    assert text.startswith("before\n<!-- measured: begin")
    assert text.endswith("<!-- measured: end -->\nafter\n")
    assert text.count("| latency | 9.1 | 7.12 ms | 3.5 (bash) | 2.04 | at most: 8 | met |") == 1
    assert "old" not in text


def test_missed_and_unjudged_rows_say_so() -> None:
    missed = report.table([{**ROW, "met": False}])
    assert "| **missed** |" in missed
    nothing = dict.fromkeys(("met", "limit", "floor", "ratio", "before"))
    unjudged = report.table([{**ROW, **nothing}])
    assert "| latency | – | 7.12 ms | – | – | – |  |" in unjudged


def test_same_figures_give_the_same_chart(tmp_path: Path) -> None:
    latency = {
        "job_ms": {"samples": [1, 2, 3], "count": 3, "p50": 2, "p95": 3, "p99": 3},
        "floor_ms": 0.5,
        "time_line_ms": {"upload": (0, 1), "run.sh": (0.8, 2)},
    }
    for name in ("a.svg", "b.svg"):
        chart.draw(latency, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert "run.sh" in (tmp_path / "a.svg").read_text()


def test_unknown_measurement_is_refused_with_the_known_ones() -> None:
    answer = CliRunner().invoke(command.main, ["--only", "speed"])
    assert answer.exit_code == 2
    assert "speed; there are latency, throughput" in answer.output


def test_page_of_the_documentation_has_the_markers() -> None:
    page = command.PAGE.read_text()
    assert report.BEGIN in page
    assert report.END in page


def test_failed_measurement_is_left_out_and_the_others_continue(tmp_path: Path) -> None:
    measured = command.run(tmp_path, SMOKE, ["no such", "counts"])["measurements"]
    assert list(measured) == ["counts"]
    assert not list(tmp_path.iterdir())
