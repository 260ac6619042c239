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
import os
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from orchestrator_common.data_folder import check_writable, locked, make_data_folder
from orchestrator_common.durable import full_disk_as_domain_error, replace_durably
from orchestrator_common.errors import DomainError
from orchestrator_common.form_body import FormFile
from orchestrator_server.store import Job

INCOMING = "incoming"


class BrokenArchive(DomainError):
    """What a client sent is not a whole ZIP file."""


@dataclass(frozen=True)
class JobFiles:
    """The data folder."""

    root: Path

    def prepare(self) -> None:
        """Make the folders. Raises ``StartupError`` if they can't be written."""
        make_data_folder(self.root, self.root / INCOMING)

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

    def begin(self, uuid: str) -> Path:
        """Make the folder that an upload goes to, and return it."""
        folder = self.root / INCOMING / uuid / "input"
        with full_disk_as_domain_error():
            folder.mkdir(parents=True)
        return folder

    def accept(self, uuid: str) -> None:
        """Make an upload that arrived whole, and is flushed, the files of a job; durably."""
        with full_disk_as_domain_error():
            replace_durably(self.root / INCOMING / uuid, self.root / uuid)

    def discard(self, uuid: str) -> None:
        """Remove what there is of an upload that is no job."""
        shutil.rmtree(self.root / INCOMING / uuid, ignore_errors=True)
        shutil.rmtree(self.root / uuid, ignore_errors=True)

    def inputs(self, job: Job) -> list[FormFile]:
        """The job's files in a stable order. Raises ``FileNotFoundError`` if they are gone."""
        top = self.root / job.uuid / "input"
        found = [
            FormFile(path.relative_to(top).as_posix(), path, path.stat().st_size)
            for path in sorted(top.rglob("*"))
            if path.is_file()
        ]
        if not found:
            raise FileNotFoundError(f"The files of job {job.id} are gone")
        return found

    def result(self, job: Job) -> Path:
        """Where the job's results are, once it has output."""
        return self.root / job.uuid / f"output-{job.attempt}.zip"

    def arriving(self, job: Job) -> Path:
        """Where results go while they arrive."""
        return self.root / job.uuid / f".output-{job.attempt}"

    def keep_result(self, job: Job) -> None:
        """Make what has arrived the job's results: checked to be a whole ZIP, flushed, renamed.

        Raises ``BrokenArchive``.
        """
        arrived = self.arriving(job)
        try:
            # A ZIP ends with its directory: one that was cut off has none.
            with zipfile.ZipFile(arrived):
                pass
        except zipfile.BadZipFile as error:
            raise BrokenArchive(f"The results of job {job.id} are no whole ZIP: {error}") from error
        with full_disk_as_domain_error():
            with arrived.open("rb") as file:
                os.fsync(file.fileno())
            replace_durably(arrived, self.result(job))

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


def _is_uuid(name: str) -> bool:
    try:
        return str(UUID(name)) == name
    except ValueError:
        return False
