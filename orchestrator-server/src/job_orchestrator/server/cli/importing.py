"""The command ``jo-server import``."""

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from job_orchestrator.common.errors import StartupError
from job_orchestrator.server.cli.maintenance import Flags, locations_of
from job_orchestrator.server.maintenance.backup import Locations
from job_orchestrator.server.maintenance.takeover.importer import (
    Importer,
    ImportReport,
    prepare_database,
)
from job_orchestrator.server.settings.server import services_of_process


@click.command("import")
@click.argument("old_db", type=click.Path(path_type=Path))
@click.option(
    "--data",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Where the DATA_PATH of the original is now; default: where its rows say",
)
@click.option("--dry-run", is_flag=True, help="Say what would be imported, and write nothing")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON")
@click.pass_obj
def import_original(
    flags: Flags, old_db: Path, data: Path | None, dry_run: bool, as_json: bool
) -> None:
    """Import the jobs of the original job-orchestrator from OLD_DB, the DB_PATH of its server.

    They go to DB_PATH and DATA_PATH, with their ids, states and files; stop jo-server first. The
    original is not changed and may run: import again after it has stopped, to take what has changed
    since. Jobs that a client has are asked for there, if their service has the same client here.
    Exit status 1: some jobs were left out, or miss files; each is one line.
    """
    with locations_of(flags) as locations, contextlib.ExitStack() as stack:
        services = services_of_process(flags)
        _refuse_same_folder(locations, old_db, data)
        if not dry_run:
            locations.files.prepare()
            stack.enter_context(locations.files.locked())
            prepare_database(locations)
        importer = Importer(old_db, data, locations, services, dry_run=dry_run)
        with _progress() as advance:
            report = importer.run(advance)
    if as_json:
        click.echo(json.dumps(_as_json(report)))
    else:
        for problem in report.problems:
            click.echo(f"jo-server: {problem}", err=True)
        click.echo(_summary(report, dry_run=dry_run))
    if report.problems:
        raise SystemExit(1)


def _refuse_same_folder(locations: Locations, old_db: Path, data: Path | None) -> None:
    """Raise ``StartupError`` if the import would write to the installation that it reads."""
    if data is not None and not data.is_dir():
        raise StartupError(f"--data is {str(data)!r}, which is no folder")
    if data is not None and data.resolve() == locations.files.root.resolve():
        raise StartupError("--data is DATA_PATH; set DATA_PATH to a new folder")
    if old_db.resolve() == locations.database.resolve():
        raise StartupError("OLD_DB is DB_PATH; set DB_PATH to a new file")


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on a terminal."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    with click.progressbar(length=0, label="Importing", file=sys.stderr) as bar:

        def advance(done: int, total: int) -> None:
            bar.length = total
            bar.update(done - bar.pos)

        yield advance


def _summary(report: ImportReport, *, dry_run: bool) -> str:
    count = sum(report.imported.values())
    states = ", ".join(f"{number} {state}" for state, number in sorted(report.imported.items()))
    verb = "would be imported" if dry_run else "imported"
    return f"{count} jobs {verb}{f' ({states})' if states else ''}; {report.unchanged} as before"


def _as_json(report: ImportReport) -> dict[str, object]:
    return {
        "imported": {str(state): number for state, number in sorted(report.imported.items())},
        "unchanged": report.unchanged,
        "problems": report.problems,
    }
