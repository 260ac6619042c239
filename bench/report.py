"""The results as a Markdown table."""

from collections.abc import Iterable, Mapping
from typing import Any

_MET = {True: "met", False: "**missed**", None: ""}


def table(rows: Iterable[Mapping[str, Any]]) -> str:
    """What was measured, its floor, the ratio of both, and whether it reaches what it has to."""
    lines = [
        "| what | measured | floor | ratio | to reach | |",
        "| --- | ---: | ---: | ---: | --- | --- |",
    ]
    for row in rows:
        floor = f"{_figure(row['floor'])} ({row['floor_name']})" if row["floor"] else "–"
        ratio = f"{row['ratio']:.2f}" if row["ratio"] else "–"
        limit = "–" if row["limit"] is None else f"{row['rule']}: {_figure(row['limit'])}"
        lines.append(
            f"| {row['what']} | {_figure(row['measured'])} {row['unit']} | {floor} | {ratio} "
            f"| {limit} | {_MET[row['met']]} |"
        )
    return "\n".join(lines) + "\n"


def _figure(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
