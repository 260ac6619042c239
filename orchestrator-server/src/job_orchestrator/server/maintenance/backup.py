"""Backup and restore: the database and the files, as they were together at one moment.

The database is copied first. A job's files are in place before its row is written, so each row of
the copy has its files; what arrives afterwards belongs to no row of it and is left out. Files are
never changed once they are in place. They can only go, when their job is cleaned, and its row says
so before they do: a second look at the rows tells whose files may have gone while they were copied.
Those are Cleaned in the backup too.

All functions block; the server may run during a backup, and may not during a restore.
"""

import contextlib
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from job_orchestrator.common.errors import DomainError
from job_orchestrator.common.storage.durable import (
    fsync_path,
    fsync_tree,
    replace_durably,
    touch_private,
)
from job_orchestrator.server.files.folder import JobFiles
from job_orchestrator.server.store.sqlite.maintenance import (
    KeptJob,
    cleaned_of,
    copy_database,
    damage,
    kept_jobs,
    leave_id_gap,
    mark_cleaned,
    opened,
    schema_version,
)

DATABASE = "db.sqlite"
DATA = "data"
NOTE = "backup.json"

_ERROR_NUMBER = re.compile(r"\[Errno \d+\] ")


class BackupFailed(DomainError):
    """The backup could not be made, or is none."""


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """What lies in a backup beside database and files; its presence says that it is whole."""

    made_at: datetime
    schema_version: int
    jobs: int
    """Whose files are in it."""


@dataclass(frozen=True)
class Places:
    """Where a server keeps its things."""

    database: Path
    files: JobFiles


def make_backup(places: Places, folder: Path) -> tuple[Note, list[str]]:
    """Back up to ``folder``, which must not be there; it appears when the backup is whole.

    Returns what files should have been there and were not, too. Raises ``BackupFailed``,
    ``DatabaseUnusable``.
    """
    if folder.exists():
        raise BackupFailed(f"{folder} is there already; name a new folder for each backup")
    partial = folder.with_name(f".{folder.name}.partial")
    with _failing(f"The backup to {folder} failed"):
        shutil.rmtree(partial, ignore_errors=True)
        partial.parent.mkdir(parents=True, exist_ok=True)
        # What users have sent is nobody else's business.
        partial.mkdir(mode=0o700)
        (partial / DATA).mkdir()
        try:
            note, missing = _fill(places, partial)
            fsync_tree(partial)
            replace_durably(partial, folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    return note, missing


def _fill(places: Places, partial: Path) -> tuple[Note, list[str]]:
    with opened(places.database) as live:
        copy_database(live, partial / DATABASE)
        with opened(partial / DATABASE) as copy:
            jobs = list(kept_jobs(copy))
            missing = {job.id: gap for job in jobs if (gap := _back_up(places.files, job, partial))}
            gone = cleaned_of(live, [job.id for job in jobs])
            for job in jobs:
                if job.id in gone:
                    shutil.rmtree(partial / DATA / job.uuid, ignore_errors=True)
            mark_cleaned(copy, gone, "Its files were removed after the retention time", time.time())
            note = Note(
                made_at=datetime.now(UTC),
                schema_version=schema_version(copy),
                jobs=len(jobs) - len(gone),
            )
    (partial / NOTE).write_bytes(msgspec.json.encode(note))
    return note, [text for job_id, text in missing.items() if job_id not in gone]


def _back_up(files: JobFiles, job: KeptJob, partial: Path) -> str:
    """Copy a job's files, by links where that can be; what was not there, if anything."""
    source, target = files.root / job.uuid, partial / DATA / job.uuid
    try:
        shutil.copytree(
            source,
            target,
            ignore=lambda folder, names: _arriving(Path(folder) == source, names),
            copy_function=_link_or_copy,
        )
    except FileNotFoundError as error:
        return f"Job {job.id} is {job.status} and {error.filename} is missing"
    except shutil.Error as error:
        if not all("No such file" in str(reason) for *_, reason in error.args[0]):
            raise
        return f"Job {job.id} is {job.status} and {error.args[0][0][0]} is missing"
    return ""


def _arriving(is_top: bool, names: list[str]) -> list[str]:
    """Results that are not whole yet. Uploaded files, which lie deeper, may have any name."""
    return [name for name in names if is_top and name.startswith(".")]


def _link_or_copy(source: str, target: str) -> None:
    with contextlib.suppress(OSError):
        os.link(source, target, follow_symlinks=False)
        return
    shutil.copy2(source, target, follow_symlinks=False)


def restore_backup(folder: Path, places: Places) -> Note:
    """Bring back what ``folder`` holds, to where nothing is.

    The files first, the database last and at once: what is interrupted can be done again. Raises
    ``BackupFailed``, ``DatabaseUnusable``; ``StartupError`` while a server holds the data folder.
    """
    note = _read_note(folder)
    # What is left beside a database that was taken away would be read as part of the new one.
    for path in (places.database, *_beside(places.database)):
        if path.exists():
            raise BackupFailed(f"{path} is there; move it and the data folder away first")
    with _failing(f"The restore from {folder} failed"):
        places.files.prepare()
        with places.files.locked():
            known = {entry.name for entry in os.scandir(folder / DATA)}
            strangers = set(places.files.folders()) - known
            if strangers:
                raise BackupFailed(
                    f"{places.files.root} holds {len(strangers)} folders that are not of this "
                    "backup; move them away first"
                )
            for uuid in sorted(known):
                _bring_back(folder / DATA / uuid, places.files, uuid)
            fsync_path(places.files.root)
            _bring_back_database(folder / DATABASE, places.database)
    return note


def _bring_back(source: Path, files: JobFiles, uuid: str) -> None:
    files.discard(uuid)
    arriving = files.incoming(uuid).parent
    shutil.copytree(source, arriving)
    fsync_tree(arriving)
    arriving.rename(files.root / uuid)


def _bring_back_database(source: Path, target: Path) -> None:
    arriving = target.with_name(f".{target.name}.partial")
    arriving.unlink(missing_ok=True)
    touch_private(arriving)
    shutil.copyfile(source, arriving)
    with opened(arriving) as connection:
        leave_id_gap(connection)
    fsync_path(arriving)
    replace_durably(arriving, target)


def _beside(database: Path) -> list[Path]:
    return [database.with_name(database.name + end) for end in ("-wal", "-shm", "-journal")]


def _read_note(folder: Path) -> Note:
    try:
        note = msgspec.json.decode((folder / NOTE).read_bytes(), type=Note)
    except (OSError, msgspec.MsgspecError) as error:
        why = f"its {NOTE} can't be read ({_told(error)})"
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            why = f"there is no {NOTE} in it" if folder.is_dir() else "there is no such folder"
        raise BackupFailed(
            f"{folder} is no folder that jo-server backup has made: {why}"
        ) from error
    with opened(folder / DATABASE) as connection:
        found = damage(connection)
    if found:
        raise BackupFailed(f"The database of the backup {folder} is damaged: {found[0]}")
    return note


@contextmanager
def _failing(what: str) -> Iterator[None]:
    """Turn errors of the operating system into ``BackupFailed``."""
    try:
        yield
    except (OSError, shutil.Error) as error:
        raise BackupFailed(f"{what}: {_told(error)}") from error


def _told(error: Exception) -> str:
    """An error as people say it, without Python's numbers and lists."""
    if isinstance(error, shutil.Error) and isinstance(error.args[0], list):
        (source, _, reason), *more = error.args[0]
        text = f"{source}: {reason}" + (f", and {len(more)} more" if more else "")
        return _ERROR_NUMBER.sub("", text)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)
