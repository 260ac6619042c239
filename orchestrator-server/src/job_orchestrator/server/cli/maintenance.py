"""The commands ``jo-server backup``, ``restore``, ``check`` and ``export``."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import click

from job_orchestrator.common.errors import DomainError, StartupError
from job_orchestrator.server.files.folder import FolderFiles
from job_orchestrator.server.maintenance.backup import (
    Locations,
    Manifest,
    make_backup,
    restore_backup,
)
from job_orchestrator.server.maintenance.export import export_job
from job_orchestrator.server.maintenance.integrity import Finding, apply_remedies, find_problems
from job_orchestrator.server.settings.server import paths_of_process

Flags = Mapping[str, str | None]

folder_argument = click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))


@click.command()
@folder_argument
@click.pass_obj
def backup(flags: Flags, folder: Path) -> None:
    """Back up database and files to DIR, which must not exist.

    The server may run, and is not interrupted. On the file system of DATA_PATH the files are hard
    links and need no space. Copy the backup to another machine yourself. Exit status 1: some files
    are missing, and therefore not in the backup; jo-server check lists them.
    """
    with locations_of(flags) as locations:
        _require_installation(locations)
        manifest, missing = make_backup(locations, folder.absolute())
    for line in missing:
        click.echo(f"jo-server: {line}", err=True)
    click.echo(f"{folder}: {_summary(manifest)}")
    if missing:
        raise SystemExit(1)


@click.command()
@folder_argument
@click.pass_obj
def restore(flags: Flags, folder: Path) -> None:
    """Restore a backup to DB_PATH and DATA_PATH, which must hold nothing else; stop the server."""
    with locations_of(flags) as locations:
        manifest = restore_backup(folder.absolute(), locations)
    click.echo(f"Restored: {_summary(manifest)}")


@click.command()
@click.option("--repair", is_flag=True, help="Repair what can be repaired; stop the server first")
@click.option(
    "--digests", is_flag=True, help="Also read all results, and compare them with their digests"
)
@click.pass_obj
def check(flags: Flags, repair: bool, digests: bool) -> None:
    """Check that the database and the files agree. Exit status 1: they don't.

    Each problem is one line, which also says what --repair would do about it.
    """
    with locations_of(flags) as locations, contextlib.ExitStack() as stack:
        _require_installation(locations)
        exclusive = True
        try:
            stack.enter_context(locations.files.locked())
        except StartupError:
            if repair:
                raise
            exclusive = False
        findings = find_problems(
            locations.database, locations.files, exclusive=exclusive, digests=digests
        )
        for finding in findings:
            click.echo(f"{finding.problem}: {finding.remedy.description(repairing=repair)}")
        left: list[Finding] = findings
        if repair:
            left = apply_remedies(locations.database, findings)
            click.echo(f"{len(findings) - len(left)} repaired, {len(left)} left")
    if left:
        raise SystemExit(1)
    if not findings:
        click.echo("Database and files agree")


@click.command()
@click.argument("job", type=click.IntRange(min=1))
@folder_argument
@click.pass_obj
def export(flags: Flags, job: int, folder: Path) -> None:
    """Write the files of JOB to DIR, which must not exist: input/ and, if it has any, results.zip.

    Small files are in the database, where other programs don't find them. The server may run.
    """
    with locations_of(flags) as locations:
        _require_installation(locations)
        written = export_job(locations, job, folder.absolute())
    click.echo(f"{folder}: {' and '.join(written)} of job {job}")


def _require_installation(locations: Locations) -> None:
    """Raise ``StartupError`` if DB_PATH or DATA_PATH does not exist.

    Without the data folder, every file would seem to be missing.
    """
    for name, path, exists in (
        ("DB_PATH", locations.database, locations.database.exists()),
        ("DATA_PATH", locations.files.root, locations.files.root.is_dir()),
    ):
        if not exists:
            raise StartupError(
                f"{name} is {str(path)!r}, which does not exist; set DB_PATH and DATA_PATH to the"
                " database and the folder of the server"
            )


def _summary(manifest: Manifest) -> str:
    return f"the files of {manifest.jobs} jobs, as of {manifest.made_at:%Y-%m-%d %H:%M:%S} UTC"


@contextlib.contextmanager
def locations_of(flags: Flags) -> Iterator[Locations]:
    """Yield the locations; print any error as one line and exit with status 2."""
    try:
        database, data = paths_of_process(flags)
        yield Locations(database, FolderFiles(data))
    except DomainError as error:
        click.echo(f"jo-server: {error}", err=True)
        raise SystemExit(2) from error
