"""Storage of files in a local folder.

::

    DATA_PATH/incoming/<uuid>/input/…       staging folder of an upload
    DATA_PATH/<uuid>/input/…                inputs of a job, as uploaded
    DATA_PATH/<uuid>/output-<attempt>.zip   results of an attempt
    DATA_PATH/<uuid>/.output-<attempt>      results that are still being received

Inputs have their own folder, so that an uploaded name cannot collide with a name of the server's.
Names of results contain the attempt, so that late results of an earlier attempt replace nothing.
"""

import contextlib
import hashlib
import io
import os
import shutil
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from uuid import UUID

from job_orchestrator.common.protocol.multipart_writer import FormBody, FormFile
from job_orchestrator.common.runtime.fault_injection import Point, reach
from job_orchestrator.common.runtime.threads import in_thread
from job_orchestrator.common.storage.data_folder import check_writable, locked, make_data_folder
from job_orchestrator.common.storage.durable import (
    WriteBehind,
    fsync_path,
    fsync_tree,
    full_disk_as_domain_error,
    replace_durably,
)
from job_orchestrator.common.storage.small_file import read_if_small
from job_orchestrator.server.errors import ResultsTooLarge
from job_orchestrator.server.files.base import LocalFile, check_archive, check_digest
from job_orchestrator.server.model import Job, StoredOutput

INCOMING = "incoming"

PRIVATE = 0o700
"""Permissions of folders: other users of this machine must not read what users have uploaded."""


@dataclass(frozen=True)
class FolderFiles:
    """The data folder ``root``. Implements ``JobFiles``."""

    root: Path

    def prepare(self) -> None:
        """Create the folders. Raises ``StartupError`` if they can't be written."""
        make_data_folder(self.root, self.root / INCOMING, mode=PRIVATE)

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Lock the data folder for this process.

        Raises ``StartupError`` if another process holds the lock.
        """
        return locked(self.root, command="jo-server", data_path=self.root)

    def remove_unfinished_uploads(self) -> None:
        """Remove the staging folders of uploads that a previous run of the server left behind.

        Call it only while holding the lock: otherwise another server may be receiving uploads.
        """
        for folder in self.unfinished_uploads():
            shutil.rmtree(folder)

    def unfinished_uploads(self) -> list[Path]:
        """Return the staging folders that exist."""
        return [Path(entry.path) for entry in os.scandir(self.root / INCOMING)]

    def check(self) -> None:
        """Raise ``OSError`` unless the folder can be written."""
        check_writable(self.root)

    def staging_folder(self, uuid: str) -> Path:
        """Return the folder that receives the files of an upload."""
        return Path(f"{self.root}/{INCOMING}/{uuid}/input")

    def accept(self, uuid: str) -> None:
        """Make the staging folder the job's folder, durably.

        The rename precedes the flushes, so that one pass of flushes covers both the files and
        their final name. A crash in between is harmless: without a row the folder is an orphan.
        """
        folder = self.job_folder(uuid)
        staged = self.root / INCOMING / uuid
        with full_disk_as_domain_error():
            # The data folder itself may be readable by others, if an administrator created it.
            staged.chmod(PRIVATE)
            staged.rename(folder)
            reach(Point.SERVER_FOLDER_RENAMED)
            fsync_tree(folder)
            fsync_path(self.root)

    def discard(self, uuid: str) -> None:
        """Remove all files of an upload or an orphan. What can't be removed is left."""
        shutil.rmtree(self.root / INCOMING / uuid, ignore_errors=True)
        shutil.rmtree(self.job_folder(uuid), ignore_errors=True)

    def inputs(self, uuid: str, fields: Sequence[tuple[str, str]]) -> FormBody:
        """Return the inputs by path, and the fields. Raises ``FileNotFoundError`` if gone."""
        files = sorted(_files_below(self.input_folder(uuid), ""), key=lambda file: file.path)
        if not files:
            raise FileNotFoundError(f"The files in {uuid} are gone")
        body = FormBody(files, fields)
        body.load_if_small()
        return body

    def are_lost(self, uuid: str) -> bool:
        """Return whether a folder is gone; false if the data folder is not mounted."""
        return (self.root / INCOMING).is_dir() and not self.job_folder(uuid).exists()

    def result_receiver(
        self, job: Job, max_bytes: int = 0, *, first_files: bool = False
    ) -> "FolderResultReceiver":
        """Return the receiver of the results of the job's current attempt."""
        return FolderResultReceiver(self, job, max_bytes, first_files)

    def served_result(self, job: Job) -> LocalFile:
        """Return the ZIP file. Raises ``FileNotFoundError``, ``OSError``."""
        path = self.result_path(job.uuid, job.attempt)
        small = read_if_small(path)
        if small is not None:
            return LocalFile(path, len(small.content), small.modified_ns, small.content)
        status = path.stat()
        return LocalFile(path, status.st_size, status.st_mtime_ns, None)

    def open_result(self, job: Job) -> IO[bytes]:
        """Open the ZIP file. Raises ``FileNotFoundError``, ``OSError``."""
        return self.result_path(job.uuid, job.attempt).open("rb")

    def remove(self, job: Job) -> None:
        """Remove the job's folder. Raises ``OSError`` if a part can't be removed."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.job_folder(job.uuid))

    def stored_uuids(self) -> Sequence[str]:
        """Return the names of all job folders. Other folders in DATA_PATH are not the server's."""
        return [entry.name for entry in os.scandir(self.root) if _is_uuid(entry.name)]

    def job_folder(self, uuid: str) -> Path:
        """Return the folder of a job's files."""
        return self.root / uuid

    def input_folder(self, uuid: str) -> Path:
        """Return the folder of a job's inputs."""
        return self.root / uuid / "input"

    def result_path(self, uuid: str, attempt: int) -> Path:
        """Return the path of the results of an attempt."""
        return self.root / uuid / f"output-{attempt}.zip"

    def unfinished_result_path(self, uuid: str, attempt: int) -> Path:
        """Return the path of results while they are being received."""
        return self.root / uuid / f".output-{attempt}"

    def unfinished_results(self, uuid: str) -> list[Path]:
        """Return the results of a job, of any attempt, that are not completely received."""
        return list(self.job_folder(uuid).glob(".output-*"))


@dataclass(frozen=True)
class FolderResultReceiver:
    """Receiver of the results of ``job``'s current attempt. Implements ``ResultReceiver``.

    ``max_bytes`` limits their size (0: no limit). Clients have such a limit too, but a client is
    not trusted to keep it. The job's folder must exist, unless these are its ``first_files``.
    """

    files: FolderFiles
    job: Job
    max_bytes: int = 0
    first_files: bool = False

    async def receive(
        self, blocks: AsyncIterator[bytes], sha256: bytes | None = None
    ) -> StoredOutput:
        """Store the results; a single block takes one thread hop. Raises as ``ResultReceiver``."""
        first = await anext(blocks, b"")
        try:
            reach(Point.SERVER_RESULTS_ARRIVED)
            self._check_size(len(first))
            second = await anext(blocks, None)
            if second is None:
                stored = await in_thread(self._keep_content, first, sha256)
            else:
                stored = await self._write(first, second, blocks)
                await in_thread(self._keep_file, stored, sha256)
            reach(Point.SERVER_RESULTS_KEPT)
        except BaseException:
            await in_thread(self._drop_partial)
            raise
        return stored

    async def _write(self, first: bytes, second: bytes, rest: AsyncIterator[bytes]) -> StoredOutput:
        digest = hashlib.sha256()
        with full_disk_as_domain_error():
            file = await in_thread(self._create)
            behind = WriteBehind(file.fileno())

            def write(block: bytes) -> int:
                file.write(block)
                digest.update(block)
                behind.wrote(len(block))
                return len(block)

            try:
                size = await in_thread(write, first)
                self._check_size(size + len(second))
                size += await in_thread(write, second)
                async for block in rest:
                    self._check_size(size + len(block))
                    size += await in_thread(write, block)
            finally:
                await in_thread(file.close)
        return StoredOutput(size, digest.digest())

    def _check_size(self, size: int) -> None:
        if self.max_bytes and size > self.max_bytes:
            raise ResultsTooLarge(self.max_bytes)

    def _keep_file(self, stored: StoredOutput, sha256: bytes | None) -> None:
        """Make the received file the results: check that it is the client's ZIP, flush, rename."""
        check_digest(self.job, stored.sha256, sha256)
        with self._partial.open("rb") as file, full_disk_as_domain_error():
            check_archive(self.job, file)
            os.fsync(file.fileno())
            replace_durably(self._partial, self._final)

    def _keep_content(self, content: bytes, sha256: bytes | None) -> StoredOutput:
        """Make ``content`` the results: check that it is the client's ZIP, write, flush, rename."""
        stored = StoredOutput(len(content), hashlib.sha256(content).digest())
        check_digest(self.job, stored.sha256, sha256)
        check_archive(self.job, io.BytesIO(content))
        with full_disk_as_domain_error():
            with self._create() as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            replace_durably(self._partial, self._final)
        return stored

    def _create(self) -> IO[bytes]:
        if self.first_files:
            self.files.job_folder(self.job.uuid).mkdir(PRIVATE, exist_ok=True)
            fsync_path(self.files.root)
        return self._partial.open("wb")

    def _drop_partial(self) -> None:
        self._partial.unlink(missing_ok=True)

    @property
    def _partial(self) -> Path:
        return self.files.unfinished_result_path(self.job.uuid, self.job.attempt)

    @property
    def _final(self) -> Path:
        return self.files.result_path(self.job.uuid, self.job.attempt)


def _files_below(folder: Path, prefix: str) -> Iterator[FormFile]:
    with os.scandir(folder) as entries:
        for entry in entries:
            path = Path(entry.path)
            if entry.is_dir(follow_symlinks=False):
                yield from _files_below(path, f"{prefix}{entry.name}/")
            else:
                yield FormFile(f"{prefix}{entry.name}", path, entry.stat().st_size)


def _is_uuid(name: str) -> bool:
    try:
        return str(UUID(name)) == name
    except ValueError:
        return False
