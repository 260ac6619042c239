"""Command of ``make bench``: measures, writes the results and prints the table."""

import asyncio
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import msgspec

from bench import chart, machine, report
from bench.journal import journalled
from bench.outcome import Outcome
from bench.registry import MEASUREMENTS
from bench.services import BIN
from bench.sizes import FULL, SMOKE, Size

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
CHART = PAGE.with_suffix(".svg")
OWN_BIN = BIN.get()
COMPARED = ("latency", "throughput", "cpu", "fairness", "accept", "transfer", "longpoll", "memory")
"""Measurements that use nothing but the documented interface, so that any version can be run."""

SIZES = {"full": FULL, "smoke": SMOKE}


@click.command()
@click.option("--only", default="", help="Names of measurements, comma-separated; default: all.")
@click.option("--size", type=click.Choice(list(SIZES)), default="full", show_default=True)
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder for temporary files; on a disk, with 40 GB free for a full run.",
)
@click.option(
    "--baseline",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder with another jo-server and jo-client, which are measured in the same run.",
)
def main(only: str, size: str, folder: Path | None, baseline: Path | None) -> None:
    """Benchmark both services and compare the figures with the floors of this machine."""
    names = [name.strip() for name in only.split(",") if name.strip()] or list(MEASUREMENTS)
    if unknown := set(names) - MEASUREMENTS.keys():
        raise click.BadParameter(f"{', '.join(unknown)}; there are {', '.join(MEASUREMENTS)}")
    # Like Ctrl-C: processes are stopped and temporary files are removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with (
        tempfile.TemporaryDirectory(prefix="jo-bench-", dir=folder) as scratch,
        journalled(Path(scratch)) as disk,
    ):
        result = run(disk, SIZES[size], names, baseline)
    complete = size == "full" and list(result["measurements"]) == list(MEASUREMENTS)
    _write(result, RESULTS / ("latest" if complete else "partial"))
    if complete:
        report.write_into(PAGE, result, CHART.name)
        chart.draw(result["measurements"]["latency"]["details"], CHART)
    click.echo(report.table(report.rows(result)), nl=False)
    if text := machine.warning(result["machine"]):
        click.echo(f"WARNING: {text}")
    if failed := [name for name in names if name not in result["measurements"]]:
        sys.exit(f"Failed: {', '.join(failed)}")


def _write(result: dict[str, Any], target: Path) -> None:
    RESULTS.mkdir(exist_ok=True)
    target.with_suffix(".json").write_bytes(
        msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n"
    )
    target.with_suffix(".md").write_text(report.table(report.rows(result)))


def run(
    scratch: Path, size: Size, names: list[str], baseline: Path | None = None
) -> dict[str, Any]:
    """Run the named measurements and return the content of the result file.

    A measurement that fails is reported and left out. With ``baseline`` each of ``COMPARED`` is run
    with its programs as well, just before.
    """
    about = machine.describe(scratch)
    if text := machine.warning(about):
        click.echo(f"WARNING: {text}", err=True)
    measurements = {}
    for name in names:
        begun = time.perf_counter()
        try:
            before = {}
            if baseline is not None and name in COMPARED:
                before = _figures(_run_one(name, scratch, size, baseline))
            outcome = _run_one(name, scratch, size)
        except Exception:
            # Keep the results of the other measurements, which took minutes.
            click.echo(f"{name} failed:\n{traceback.format_exc()}", err=True)
            continue
        seconds = time.perf_counter() - begun
        click.echo(f"{name}: {seconds:.1f} s", err=True)
        measurements[name] = {
            "rows": [
                asdict(row) | {"ratio": row.ratio, "met": row.met, "before": before.get(row.what)}
                for row in outcome.rows
            ],
            "details": outcome.details,
            "seconds": round(seconds, 1),
        }
    return {"machine": about, "measurements": measurements}


def _run_one(name: str, scratch: Path, size: Size, programs: Path | None = None) -> Outcome:
    """Run one measurement, with the programs of another environment if given."""
    if programs is not None:
        BIN.set(programs)
    try:
        with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=scratch) as folder:
            return asyncio.run(_measure(name, Path(folder), size))
    finally:
        BIN.set(OWN_BIN)


def _figures(outcome: Outcome) -> dict[str, float]:
    return {row.what: row.measured for row in outcome.rows}


async def _measure(name: str, folder: Path, size: Size) -> Outcome:
    return await MEASUREMENTS[name](folder, size)


if __name__ == "__main__":
    sys.exit(main())
