"""Chart of the latency of a trivial job: distribution, and time line of its hops."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, JOB, FLOOR = "#24292f", "#2a6f97", "#c1666b"

# Reproducible: the same results produce the same file, without a date or random ids.
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "job-orchestrator",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def draw(latency: Mapping[str, Any], file: Path) -> None:
    """Draw the details of the latency measurement into an SVG file."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 5.2), layout="constrained")
        above, below = figure.subplots(2, 1)
        _distribution(above, latency)
        _time_line(below, latency["time_line_ms"])
        figure.savefig(file, format="svg", metadata={"Date": None})


def _distribution(axes: Axes, latency: Mapping[str, Any]) -> None:
    jobs = latency["job_ms"]
    axes.hist(jobs["samples"], bins=40, color=JOB)
    floor = latency["floor_ms"]
    axes.axvline(floor, color=FLOOR)
    top = axes.get_ylim()[1]
    _label(axes, (floor, top * 0.95), f"the floor: {floor:.1f} ms")
    for name in ("p50", "p95", "p99"):
        axes.axvline(jobs[name], color=INK, linewidth=0.8, linestyle=":")
        _label(axes, (jobs[name], top * 0.8), name)
    axes.set_xlim(left=0)
    axes.set_xlabel("ms")
    axes.set_ylabel("jobs")
    axes.set_title(f"{jobs['count']} trivial jobs, from POST to the ZIP", loc="left")


def _time_line(axes: Axes, hops: Mapping[str, tuple[float, float]]) -> None:
    for row, (name, (begin, end)) in enumerate(hops.items()):
        axes.barh(row, end - begin, left=begin, height=0.6, color=JOB)
        _label(axes, (end, row), f"{end - begin:.1f} ms")
        _label(axes, (begin, row), name, left=True)
    axes.invert_yaxis()
    axes.set_yticks([])
    axes.spines.left.set_visible(False)
    last = max(end for _, end in hops.values())
    axes.set_xlim(-0.28 * last, 1.15 * last)
    axes.set_xticks([tick for tick in axes.get_xticks() if 0 <= tick <= 1.15 * last])
    axes.set_xlabel("ms since the POST was sent")
    axes.set_title("The hops of the median job", loc="left")


def _label(axes: Axes, at: tuple[float, float], text: str, *, left: bool = False) -> None:
    """Write a text next to a point."""
    offset, align = (-4, "right") if left else (4, "left")
    axes.annotate(text, at, (offset, 0), textcoords="offset points", va="center", ha=align)
