"""``jo-server backup``, ``restore`` and ``check``."""

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
from job_orchestrator.server.maintenance.integrity import Finding, apply_remedies, find_problems
from job_orchestrator.server.settings.server import places_of_process

Flags = Mapping[str, str | None]

folder_argument = click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))


@click.command()
@folder_argument
@click.pass_obj
def backup(flags: Flags, folder: Path) -> None:
    """Back up database and files to DIR, which must be new.

    The server may run, and is not held up. On the file system of DATA_PATH the files cost no room:
    they are linked. A copy on another machine is for you to make. Exit status 1: files that should
    be there are not, here or in the backup; jo-server check says more.
    """
    with _at(flags) as places:
        _require_data_folder(places)
        note, missing = make_backup(places, folder.absolute())
    for line in missing:
        click.echo(f"jo-server: {line}", err=True)
    click.echo(f"{folder}: {_told(note)}")
    if missing:
        raise SystemExit(1)


@click.command()
@folder_argument
@click.pass_obj
def restore(flags: Flags, folder: Path) -> None:
    """Bring back a backup to DB_PATH and DATA_PATH, where nothing may be; no server may run."""
    with _at(flags) as places:
        note = restore_backup(folder.absolute(), places)
    click.echo(f"Restored: {_told(note)}")


@click.command()
@click.option("--repair", is_flag=True, help="Mend what can be mended; no server may run")
@click.pass_obj
def check(flags: Flags, repair: bool) -> None:
    """See whether the database and the files agree. Exit status 1: they don't.

    Of each finding a line says what --repair would do about it.
    """
    with _at(flags) as places, contextlib.ExitStack() as stack:
        _require_data_folder(places)
        exclusive = True
        try:
            stack.enter_context(places.files.locked())
        except StartupError:
            if repair:
                raise
            exclusive = False
        findings = find_problems(places.database, places.files, exclusive=exclusive)
        for finding in findings:
            click.echo(f"{finding.problem}: {finding.remedy.description(repairing=repair)}")
        left: list[Finding] = findings
        if repair:
            left = apply_remedies(places.database, findings)
            click.echo(f"{len(findings) - len(left)} mended, {len(left)} left")
    if left:
        raise SystemExit(1)
    if not findings:
        click.echo("Database and files agree")


def _require_data_folder(places: Locations) -> None:
    """Raise ``StartupError`` where DATA_PATH was forgotten, rather than miss every file there."""
    if not places.files.root.is_dir():
        raise StartupError(f"DATA_PATH is {str(places.files.root)!r}, where there is no folder")


def _told(note: Manifest) -> str:
    return f"the files of {note.jobs} jobs, as of {note.made_at:%Y-%m-%d %H:%M:%S} UTC"


@contextlib.contextmanager
def _at(flags: Flags) -> Iterator[Locations]:
    """Where the server keeps its things. What goes wrong is told in a line, with exit status 2."""
    try:
        database, data = places_of_process(flags)
        yield Locations(database, FolderFiles(data))
    except DomainError as error:
        click.echo(f"jo-server: {error}", err=True)
        raise SystemExit(2) from error
