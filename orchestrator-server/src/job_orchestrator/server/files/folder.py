"""Layout of the jobs' files.

::

    DATA_PATH/incoming/<uuid>/input/…       an upload that is still arriving
    DATA_PATH/<uuid>/input/…                the files of a job, as uploaded
    DATA_PATH/<uuid>/output-<attempt>.zip   its results
    DATA_PATH/<uuid>/.output-<attempt>      results that are still arriving

Inputs have a folder of their own, so that no uploaded name can meet one of ours; results carry the
number of the attempt, so that what an earlier attempt brings late replaces nothing. All methods
block: call them in a thread.
"""

import contextlib
import io
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from uuid import UUID

from job_orchestrator.common.errors import DomainError
from job_orchestrator.common.protocol.multipart_writer import FormBody, FormFile
from job_orchestrator.common.runtime.fault_injection import Point, reach
from job_orchestrator.common.storage.data_folder import check_writable, locked, make_data_folder
from job_orchestrator.common.storage.durable import (
    fsync_path,
    fsync_tree,
    full_disk_as_domain_error,
    replace_durably,
)
from job_orchestrator.server.files.zip_reader import NoZip, read_directory, read_entries
from job_orchestrator.server.model import Job

INCOMING = "incoming"
MAX_LISTED = 10_000

PRIVATE = 0o700
"""Permissions of folders: what users send is nobody else's business on this machine."""


class BrokenArchive(DomainError):
    """What a client sent is not a whole ZIP file."""


@dataclass(frozen=True)
class JobFiles:
    """The data folder."""

    root: Path

    def prepare(self) -> None:
        """Make the folders. Raises ``StartupError`` if they can't be written."""
        make_data_folder(self.root, self.root / INCOMING, mode=PRIVATE)

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Hold the data folder for this process. Raises ``StartupError`` if another holds it."""
        return locked(self.root, command="jo-server", data_path=self.root)

    def drop_incoming(self) -> None:
        """Drop uploads that an earlier life of the server left half done.

        Only while holding the folder: another server's uploads may be on their way in there.
        """
        for entry in list(os.scandir(self.root / INCOMING)):
            shutil.rmtree(entry.path)

    def check(self) -> None:
        """Raise ``OSError`` unless the folder can be written."""
        check_writable(self.root)

    def incoming(self, uuid: str) -> Path:
        """The folder that the files of an upload go to."""
        return self.root / INCOMING / uuid / "input"

    def accept(self, uuid: str) -> None:
        """Make an upload that arrived whole the files of a job; on return they are durable.

        The rename comes first, so that one flush covers everything: until there is a row, nobody
        takes the folder for a job's.
        """
        folder = self.root / uuid
        arrived = self.root / INCOMING / uuid
        with full_disk_as_domain_error():
            # The data folder may be older than this rule, and somebody else's work.
            arrived.chmod(PRIVATE)
            arrived.rename(folder)
            reach(Point.SERVER_FOLDER_RENAMED)
            fsync_tree(folder)
            fsync_path(self.root)

    def discard(self, uuid: str) -> None:
        """Remove what there is of an upload that is no job."""
        shutil.rmtree(self.root / INCOMING / uuid, ignore_errors=True)
        shutil.rmtree(self.root / uuid, ignore_errors=True)

    def inputs(self, job: Job) -> FormBody:
        """The job's files as they are sent to a client, in a stable order; loaded if small.

        Raises ``FileNotFoundError`` if they are gone.
        """
        top = self.root / job.uuid / "input"
        files = sorted(_files_below(top, ""), key=lambda file: file.path)
        if not files:
            raise FileNotFoundError(f"The files of job {job.id} are gone")
        body = FormBody(files)
        body.load_if_small()
        return body

    def lost(self, job: Job) -> bool:
        """Whether the job's folder is gone, from a data folder that is in its place."""
        return (self.root / INCOMING).is_dir() and not (self.root / job.uuid).exists()

    def result(self, job: Job) -> Path:
        """Where the job's results are, once it has output."""
        return self.root / job.uuid / f"output-{job.attempt}.zip"

    def arriving(self, job: Job) -> Path:
        """Where results go while they arrive."""
        return self.root / job.uuid / f".output-{job.attempt}"

    def keep_result(self, job: Job) -> None:
        """Make what has arrived the job's results: checked to be a whole ZIP, flushed, renamed.

        Raises ``BrokenArchive``, ``StorageFull``.
        """
        arrived = self.arriving(job)
        with arrived.open("rb") as file, full_disk_as_domain_error():
            _check_archive(job, file)
            os.fsync(file.fileno())
            replace_durably(arrived, self.result(job))

    def keep_small_result(self, job: Job, content: bytes) -> None:
        """Write results that have arrived in memory; like ``keep_result``."""
        _check_archive(job, io.BytesIO(content))
        with full_disk_as_domain_error():
            with self.arriving(job).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            replace_durably(self.arriving(job), self.result(job))

    def listed(self, path: Path) -> tuple[list[tuple[str, int]], bool]:
        """Paths and sizes in bytes of the files in results, and whether there are more.

        Raises ``FileNotFoundError`` if the results are gone.
        """
        shown: list[tuple[str, int]] = []
        with path.open("rb") as file:
            for entry in read_entries(file, read_directory(file)):
                if entry.is_folder:
                    continue
                if len(shown) == MAX_LISTED:
                    return shown, True
                shown.append((entry.path, entry.size))
        return shown, False

    def drop_arriving(self, job: Job) -> None:
        """Remove results that did not arrive whole."""
        self.arriving(job).unlink(missing_ok=True)

    def remove(self, job: Job) -> None:
        """Remove everything of a job. What is gone already is no error; what can't go is."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.root / job.uuid)

    def folders(self) -> list[str]:
        """Names of all job folders."""
        return [entry.name for entry in os.scandir(self.root) if _is_uuid(entry.name)]

    def remove_orphan(self, uuid: str) -> None:
        """Remove a folder that belongs to no job."""
        shutil.rmtree(self.root / uuid, ignore_errors=True)


def _files_below(folder: Path, prefix: str) -> Iterator[FormFile]:
    with os.scandir(folder) as entries:
        for entry in entries:
            path = Path(entry.path)
            if entry.is_dir(follow_symlinks=False):
                yield from _files_below(path, f"{prefix}{entry.name}/")
            else:
                yield FormFile(f"{prefix}{entry.name}", path, entry.stat().st_size)


def _check_archive(job: Job, file: IO[bytes]) -> None:
    """A ZIP ends with its directory: one that was cut off has none. Raises ``BrokenArchive``."""
    try:
        read_directory(file)
    except NoZip as error:
        raise BrokenArchive(f"The results of job {job.id} are no whole ZIP: {error}") from error


def _is_uuid(name: str) -> bool:
    try:
        return str(UUID(name)) == name
    except ValueError:
        return False
