"""Formats the results as a Markdown table, and writes them into the documentation."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bench import machine

BEGIN = "<!-- measured: begin (written by `make bench`) -->\n"
END = "<!-- measured: end -->\n"
_MET: Mapping[bool | None, str] = {True: "met", False: "**missed**", None: ""}


def table(rows: Iterable[Mapping[str, Any]]) -> str:
    """Format rows: figure, that of the baseline, floor, ratio, target, and whether it is met."""
    lines = [
        "| what | before | measured | floor | ratio | to reach | |",
        "| --- | ---: | ---: | ---: | ---: | --- | --- |",
    ]
    for row in rows:
        floor = f"{_figure(row['floor'])} ({row['floor_name']})" if row["floor"] else "–"
        ratio = f"{row['ratio']:.2f}" if row["ratio"] else "–"
        before = "–" if row.get("before") is None else _figure(row["before"])
        limit = "–" if row["limit"] is None else f"{row['rule']}: {_figure(row['limit'])}"
        lines.append(
            f"| {row['what']} | {before} | {_figure(row['measured'])} {row['unit']} | {floor} "
            f"| {ratio} | {limit} | {_MET[row['met']]} |"
        )
    return "\n".join(lines) + "\n"


def rows(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return all rows of a result file."""
    return [row for found in result["measurements"].values() for row in found["rows"]]


def write_into(page: Path, result: Mapping[str, Any], chart: str) -> None:
    """Replace the text between the markers in a page of the documentation."""
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    about = result["machine"]
    text = (
        f"{about['at']}, {about['cores']} cores ({about['cpu']}), {about['memory_gib']} GiB,"
        f" {about['file_system']}, Linux {about['kernel']}, Python {about['python']}"
        f" ({'' if about['python_optimized'] else 'not '}optimized by profile),"
        f" load {about['load_average'][0]} before the run. {machine.warning(about)}"
    )
    page.write_text(
        f"{before}{BEGIN}{text.strip()}\n\n{table(rows(result))}\n"
        f"![Latency of a trivial job, and the time line of its hops]({chart})\n{END}{after}"
    )


def _figure(value: float) -> str:
    """Format with three significant digits, or as an integer from 100 on."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
