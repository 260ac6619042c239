"""The commands ``jo-server backup``, ``restore`` and ``check``."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import click

from job_orchestrator.common.errors import DomainError, StartupError
from job_orchestrator.server.files.folder import JobFiles
from job_orchestrator.server.maintenance.backup import Note, Places, make_backup, restore_backup
from job_orchestrator.server.maintenance.integrity import find, mend
from job_orchestrator.server.settings.server import paths_of_process

Flags = Mapping[str, str | None]

folder_argument = click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))


@click.command()
@folder_argument
@click.pass_obj
def backup(flags: Flags, folder: Path) -> None:
    """Back up the database and the files to DIR, which must not exist.

    The server can run and is not delayed. Files are hard-linked if DIR is on the file system of
    DATA_PATH, and then use no additional disk space; copy the backup to another machine yourself.

    The exit status is 1 if files are missing, in DATA_PATH or in the backup; jo-server check lists
    them.
    """
    with _storage(flags) as storage:
        _require_data_folder(storage)
        note, missing = make_backup(storage, folder.absolute())
    for line in missing:
        click.echo(f"jo-server: {line}", err=True)
    click.echo(f"{folder}: {_contents(note)}")
    if missing:
        raise SystemExit(1)


@click.command()
@folder_argument
@click.pass_obj
def restore(flags: Flags, folder: Path) -> None:
    """Restore the backup in DIR to DB_PATH and DATA_PATH.

    DB_PATH must not exist, DATA_PATH must be empty, and no server may run with them. An interrupted
    restore can be repeated.
    """
    with _storage(flags) as storage:
        note = restore_backup(folder.absolute(), storage)
    click.echo(f"Restored: {_contents(note)}")


@click.command()
@click.option("--repair", is_flag=True, help="Repair what can be repaired; no server may run")
@click.pass_obj
def check(flags: Flags, repair: bool) -> None:
    """Check whether the database and the files agree.

    Each problem is one line, which says what --repair would do about it. The exit status is 1 if
    problems are found, or are left after a repair.
    """
    with _storage(flags) as storage, contextlib.ExitStack() as stack:
        _require_data_folder(storage)
        alone = True
        try:
            stack.enter_context(storage.files.locked())
        except StartupError:
            if repair:
                raise
            alone = False
        findings = find(storage.database, storage.files, alone=alone)
        for finding in findings:
            click.echo(f"{finding.what}: {finding.remedy.told(at_work=repair)}")
        left = findings
        if repair:
            left = mend(storage.database, storage.files, findings)
            click.echo(f"{len(findings) - len(left)} repaired, {len(left)} left")
    if left:
        raise SystemExit(1)
    if not findings:
        click.echo("Database and files agree")


def _require_data_folder(storage: Places) -> None:
    """Raise ``StartupError`` if DATA_PATH is missing: one error, not one for each file."""
    if not storage.files.root.is_dir():
        raise StartupError(f"DATA_PATH is {str(storage.files.root)!r}, which is not a folder")


def _contents(note: Note) -> str:
    return f"the files of {note.jobs} jobs, as of {note.made_at:%Y-%m-%d %H:%M:%S} UTC"


@contextlib.contextmanager
def _storage(flags: Flags) -> Iterator[Places]:
    """Yield where database and files are. Print an error as one line and exit with status 2."""
    try:
        database, data = paths_of_process(flags)
        yield Places(database, JobFiles(data))
    except DomainError as error:
        click.echo(f"jo-server: {error}", err=True)
        raise SystemExit(2) from error
