"""Figures of a replay: waits by class of user, use of slots, fairness; as a table and an SVG."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from job_orchestrator.server.scheduling.simulation.replay import Outcome
from job_orchestrator.server.scheduling.simulation.trace import TraceJob

CLASSES = ("light users", "heavy users", "all")
_COLOURS = ("#2563eb", "#d97706", "#6b7280")
_ROW, _LEFT, _WIDTH = 22, 220, 460


@dataclass(frozen=True)
class Figures:
    """Figures of one policy. ``waits_s`` has the 50th and 90th percentile of each class.

    ``jain`` is Jain's index of the users' mean slowdowns: 1 if all are equal. ``used`` is the part
    of the slots that was used, ``idle_h`` the slot-hours that were idle while jobs waited.
    """

    waits_s: Mapping[str, tuple[float, float]]
    used: float
    idle_h: float
    jain: float


def light_users(jobs: Sequence[TraceJob]) -> frozenset[int]:
    """Return the half of the users whose jobs ran for the shortest time in all."""
    total_s: defaultdict[int, float] = defaultdict(float)
    for job in jobs:
        total_s[job.user_id] += job.run_s
    ordered = sorted(total_s, key=lambda user: (total_s[user], user))
    return frozenset(ordered[: (len(ordered) + 1) // 2])


def figures_of(jobs: Sequence[TraceJob], outcome: Outcome) -> Figures:
    """Return the figures of a replay."""
    light = light_users(jobs)
    waits: dict[str, list[float]] = {name: [] for name in CLASSES}
    slowdowns: defaultdict[int, list[float]] = defaultdict(list)
    for job, wait_s in zip(jobs, outcome.waits_s, strict=True):
        waits["light users" if job.user_id in light else "heavy users"].append(wait_s)
        waits["all"].append(wait_s)
        slowdowns[job.user_id].append((wait_s + job.run_s) / max(job.run_s, 1.0))
    means = [sum(each) / len(each) for each in slowdowns.values()]
    squares = sum(mean**2 for mean in means)
    return Figures(
        {name: (_percentile(each, 0.5), _percentile(each, 0.9)) for name, each in waits.items()},
        outcome.used_s / (outcome.span_s * outcome.slots) if outcome.span_s else 0.0,
        outcome.idle_s / 3600,
        sum(means) ** 2 / (len(means) * squares) if squares else 1.0,
    )


def _percentile(values: Sequence[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[max(math.ceil(part * len(ordered)) - 1, 0)] if ordered else 0.0


def table(results: Mapping[str, Figures]) -> str:
    """Return a Markdown table with one line for each policy; waits in hours."""
    lines = [
        "| policy | light p50 | light p90 | heavy p90 | all p90 | used | idle slot-hours | Jain |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, each in results.items():
        light, heavy, everybody = (each.waits_s[kind] for kind in CLASSES)
        hours = [light[0], light[1], heavy[1], everybody[1]]
        cells = [f"{hour_s / 3600:.2f}" for hour_s in hours]
        cells += [f"{each.used:.0%}", f"{each.idle_h:,.0f}", f"{each.jain:.2f}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def svg(results: Mapping[str, Figures]) -> str:
    """Return a bar chart of the 90th percentiles of the waits."""
    most_s = max((w[1] for each in results.values() for w in each.waits_s.values()), default=0.0)
    parts, y = [], 10
    for name, each in results.items():
        parts.append(f'<text x="4" y="{y + 38}">{_escaped(name)}</text>')
        for colour, kind in zip(_COLOURS, CLASSES, strict=True):
            wait_s = each.waits_s[kind][1]
            width = round(_WIDTH * wait_s / most_s) if most_s else 0
            parts.append(
                f'<rect x="{_LEFT}" y="{y}" width="{width}" height="18" fill="{colour}"/>'
                f'<text x="{_LEFT + width + 6}" y="{y + 14}">{wait_s / 3600:.2f} h, {kind}</text>'
            )
            y += _ROW
        y += _ROW
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_LEFT + _WIDTH + 180} {y}"'
        ' font-family="sans-serif" font-size="13" role="img">'
        "<title>90th percentile of the waits</title>" + "".join(parts) + "</svg>\n"
    )


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
