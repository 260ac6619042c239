"""Backup and restore of the database and the data folder, consistent with each other.

The database is copied first, with the small files that it holds. Other files of a job are stored
before its row is written, so all files of the copied rows exist; files that are stored later belong
to no copied row and are left out. Stored files are never changed, but retention may remove them
while they are copied. It marks the row Cleaned before it removes the files, so the rows are read a
second time after the files: jobs that are Cleaned by then are marked Cleaned in the backup too.

All functions block. The server may run during a backup, but not during a restore.
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
from job_orchestrator.server.files.folder import FolderFiles
from job_orchestrator.server.store.sqlite.maintenance.kept_jobs import (
    KeptArray,
    KeptJob,
    cleaned_of,
    copy_database,
    damage,
    kept_arrays,
    kept_jobs,
    leave_id_gap,
    mark_cleaned,
    opened,
    schema_version,
)

DATABASE = "db.sqlite"
DATA = "data"
MANIFEST = "backup.json"

_ERROR_NUMBER = re.compile(r"\[Errno \d+\] ")


class BackupFailed(DomainError):
    """The backup could not be made or restored."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """Description of a backup. It is written last: a folder without it is not a backup."""

    made_at: datetime
    schema_version: int
    jobs: int
    """Number of jobs whose files are in the backup."""


@dataclass(frozen=True)
class Locations:
    """Database and data folder of a server."""

    database: Path
    files: FolderFiles


def make_backup(locations: Locations, folder: Path) -> tuple[Manifest, list[str]]:
    """Back up to ``folder``, which must not exist and is created when the backup is complete.

    Returns the manifest, and a message for each job whose files are missing. Raises
    ``BackupFailed``, ``DatabaseUnusable``.
    """
    if folder.exists():
        raise BackupFailed(f"{folder} already exists; each backup needs a new folder")
    partial = folder.with_name(f".{folder.name}.partial")
    with _failing(f"The backup to {folder} failed"):
        shutil.rmtree(partial, ignore_errors=True)
        partial.parent.mkdir(parents=True, exist_ok=True)
        # Other users of this machine must not read what users have uploaded.
        partial.mkdir(mode=0o700)
        (partial / DATA).mkdir()
        try:
            manifest, missing = _fill(locations, partial)
            fsync_tree(partial)
            replace_durably(partial, folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    return manifest, missing


def _fill(locations: Locations, partial: Path) -> tuple[Manifest, list[str]]:
    with opened(locations.database) as live:
        copy_database(live, partial / DATABASE)
        with opened(partial / DATABASE) as copy:
            jobs = list(kept_jobs(copy))
            missing = {
                job.id: gap for job in jobs if (gap := _back_up(locations.files, job, partial))
            }
            arrays = kept_arrays(copy)
            missing |= {
                array.id: gap
                for array in arrays
                if (gap := _back_up_array(locations.files, array, partial))
            }
            gone = cleaned_of(live, [job.id for job in jobs])
            for job in jobs:
                if job.id in gone:
                    shutil.rmtree(partial / DATA / job.uuid, ignore_errors=True)
            mark_cleaned(copy, gone, "Its files were removed after the retention time", time.time())
            for array in set(arrays) - set(kept_arrays(copy)):
                shutil.rmtree(partial / DATA / array.uuid, ignore_errors=True)
            manifest = Manifest(
                made_at=datetime.now(UTC),
                schema_version=schema_version(copy),
                jobs=len(jobs) - len(gone),
            )
    (partial / MANIFEST).write_bytes(msgspec.json.encode(manifest))
    return manifest, [text for job_id, text in missing.items() if job_id not in gone]


def _back_up(files: FolderFiles, job: KeptJob, partial: Path) -> str:
    """Copy a job's files, with hard links if possible. Returns a message if some are missing.

    A job may have no folder, because all of its files are in the database.
    """
    if not job.needs_folder:
        return ""
    return _copy_folder(files, job.uuid, partial, f"Job {job.id} is {job.status}")


def _back_up_array(files: FolderFiles, array: KeptArray, partial: Path) -> str:
    """Copy the inputs of an array. Returns a message if some are missing."""
    if array.inline_inputs:
        return ""
    return _copy_folder(files, array.uuid, partial, f"Array {array.id} has tasks")


def _copy_folder(files: FolderFiles, uuid: str, partial: Path, about: str) -> str:
    source, target = files.job_folder(uuid), partial / DATA / uuid
    try:
        shutil.copytree(
            source,
            target,
            ignore=lambda folder, names: _unfinished(Path(folder) == source, names),
            copy_function=_link_or_copy,
        )
    except FileNotFoundError as error:
        return f"{about} and {error.filename} is missing"
    except shutil.Error as error:
        if not all("No such file" in str(reason) for *_, reason in error.args[0]):
            raise
        return f"{about} and {error.args[0][0][0]} is missing"
    return ""


def _unfinished(is_top: bool, names: list[str]) -> list[str]:
    """Return the names of incomplete results. Uploaded files, one level deeper, have any name."""
    return [name for name in names if is_top and name.startswith(".")]


def _link_or_copy(source: str, target: str) -> None:
    with contextlib.suppress(OSError):
        os.link(source, target, follow_symlinks=False)
        return
    shutil.copy2(source, target, follow_symlinks=False)


def restore_backup(folder: Path, locations: Locations) -> Manifest:
    """Restore the backup in ``folder`` to locations that hold nothing else.

    Files are restored first and the database last, with one rename, so that an interrupted restore
    can be repeated. Raises ``BackupFailed``, ``DatabaseUnusable``; ``StartupError`` while a server
    has locked the data folder.
    """
    manifest = _read_manifest(folder)
    # SQLite would read leftover journal files of a removed database as part of the restored one.
    for path in (locations.database, *_journal_files(locations.database)):
        if path.exists():
            raise BackupFailed(f"{path} exists; move it and the data folder away first")
    with _failing(f"The restore from {folder} failed"):
        locations.files.prepare()
        with locations.files.locked():
            in_backup = {entry.name for entry in os.scandir(folder / DATA)}
            foreign = set(locations.files.stored_uuids()) - in_backup
            if foreign:
                raise BackupFailed(
                    f"{locations.files.root} holds {len(foreign)} folders that are not in this "
                    "backup; move them away first"
                )
            for uuid in sorted(in_backup):
                _restore_files(folder / DATA / uuid, locations.files, uuid)
            fsync_path(locations.files.root)
            _restore_database(folder / DATABASE, locations.database)
    return manifest


def _restore_files(source: Path, files: FolderFiles, uuid: str) -> None:
    files.discard(uuid)
    staged = files.staging_folder(uuid).parent
    shutil.copytree(source, staged)
    fsync_tree(staged)
    staged.rename(files.job_folder(uuid))


def _restore_database(source: Path, target: Path) -> None:
    partial = target.with_name(f".{target.name}.partial")
    partial.unlink(missing_ok=True)
    touch_private(partial)
    shutil.copyfile(source, partial)
    with opened(partial) as connection:
        leave_id_gap(connection)
    fsync_path(partial)
    replace_durably(partial, target)


def _journal_files(database: Path) -> list[Path]:
    return [database.with_name(database.name + end) for end in ("-wal", "-shm", "-journal")]


def _read_manifest(folder: Path) -> Manifest:
    try:
        manifest = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
    except (OSError, msgspec.MsgspecError) as error:
        reason = f"its {MANIFEST} can't be read ({_in_words(error)})"
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            reason = f"it has no {MANIFEST}" if folder.is_dir() else "there is no such folder"
        raise BackupFailed(
            f"{folder} is not a folder that jo-server backup has made: {reason}"
        ) from error
    with opened(folder / DATABASE) as connection:
        found = damage(connection)
    if found:
        raise BackupFailed(f"The database of the backup {folder} is damaged: {found[0]}")
    return manifest


@contextmanager
def _failing(what: str) -> Iterator[None]:
    """Convert errors of the operating system to ``BackupFailed``."""
    try:
        yield
    except (OSError, shutil.Error) as error:
        raise BackupFailed(f"{what}: {_in_words(error)}") from error


def _in_words(error: Exception) -> str:
    """Return the message of an error without Python's error numbers and lists."""
    if isinstance(error, shutil.Error) and isinstance(error.args[0], list):
        (source, _, reason), *more = error.args[0]
        text = f"{source}: {reason}" + (f", and {len(more)} more" if more else "")
        return _ERROR_NUMBER.sub("", text)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)
