"""The contract of the storage of files: inputs and results of jobs.

Files are durable, and complete or absent: what a method has stored survives a power cut, and part
of a file is never visible. Files are never changed once they are stored. The row in the store
decides whether stored files belong to a job: they are stored before the row is written, and
removed after the row says so. Files without a row are orphans, and are removed at the next start.

Methods block and are called in a thread, unless they are coroutines.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol, TypeAlias

from job_orchestrator.common.errors import DomainError
from job_orchestrator.common.protocol.multipart_writer import FormBody
from job_orchestrator.server.files.zip_reader import NotAZip, read_directory
from job_orchestrator.server.model import Job, StoredOutput


class BrokenArchive(DomainError):
    """The results that a client sent are not a complete ZIP file, or others than it has."""


@dataclass(frozen=True)
class LocalFile:
    """A file on a local file system, which is served with sendfile and in ranges.

    ``modified_ns`` is in nanoseconds since the epoch. ``content`` holds the whole file if it is
    small, otherwise None: sending a small file from memory costs less than opening it again.
    """

    path: Path
    size: int
    modified_ns: int
    content: bytes | None


@dataclass(frozen=True)
class SmallResult:
    """Results that are served from memory. ``modified_ns`` is in nanoseconds since the epoch."""

    content: bytes
    modified_ns: int


ServedResult: TypeAlias = LocalFile | SmallResult
"""Closed union of the ways to serve results.

An implementation that serves results in another way (a redirect to a presigned URL, a stream of
bytes) adds a kind of value here. The web layer matches the union exhaustively, so the type checker
then reports each place that has to serve the added kind.
"""


def check_archive(job: Job, file: IO[bytes]) -> None:
    """Raise ``BrokenArchive`` unless ``file`` ends with the directory of a ZIP.

    The directory is at the end of a ZIP, so a file that was cut off has none.
    """
    try:
        read_directory(file)
    except NotAZip as error:
        raise BrokenArchive(
            f"The results of job {job.id} are not a complete ZIP file: {error}"
        ) from error


class ResultReceiver(Protocol):
    """Destination of the results of one attempt while they are transferred from a client."""

    async def receive(
        self, blocks: AsyncIterator[bytes], sha256: bytes | None = None
    ) -> StoredOutput:
        """Store ``blocks`` as the results of the attempt; after an error, no part of them is left.

        ``sha256`` is the digest of the results at their client, None if the client has sent none;
        results with another digest are refused. Results that the attempt already has are replaced
        as a whole, so a transfer may be repeated. Raises ``BrokenArchive``, ``StorageFull``,
        ``ResultsTooLarge`` as soon as the limit is exceeded, ``FileNotFoundError`` if the job's
        files were removed, and any error that ``blocks`` raises.
        """


def check_digest(job: Job, received: bytes, sent: bytes | None) -> None:
    """Raise ``BrokenArchive`` if the results of a job are not those that the client has packed.

    ``received`` is the digest of what has arrived, ``sent`` that of the client; None: it sent none.
    """
    if sent is not None and received != sent:
        raise BrokenArchive(
            f"The results of job {job.id} were changed on their way: their SHA-256 digest is"
            f" {received.hex()}, at the client it was {sent.hex()}"
        )


class JobFiles(Protocol):
    """Inputs and results of all jobs."""

    def check(self) -> None:
        """Raise ``OSError`` unless files can be stored now."""

    def staging_folder(self, uuid: str) -> Path:
        """Return the local folder that receives the files of an upload; the caller creates it."""

    def accept(self, uuid: str) -> None:
        """Store the files of the staging folder as the inputs of a job.

        The staging folder is gone afterwards. Raises ``StorageFull``.
        """

    def discard(self, uuid: str) -> None:
        """Remove all files of an upload or an orphan, staged and stored. Idempotent."""

    def inputs(self, uuid: str, fields: Sequence[tuple[str, str]]) -> FormBody:
        """Return inputs and ``fields`` as the request body for a client, in a stable order.

        The content of small inputs is loaded. Raises ``FileNotFoundError`` if they are gone.
        """

    def are_lost(self, uuid: str) -> bool:
        """Return whether files are gone although the storage itself is available."""

    def result_receiver(
        self, job: Job, max_bytes: int = 0, *, first_files: bool = False
    ) -> ResultReceiver:
        """Return the receiver of the results of the job's current attempt.

        Results of another attempt are not replaced. ``max_bytes`` limits their size (0: no limit).
        ``first_files``: nothing of the job is stored here yet, because its inputs are elsewhere.
        """

    def served_result(self, job: Job) -> ServedResult:
        """Return the results of the job's current attempt in the form in which they are served.

        Raises ``FileNotFoundError`` if there are none, ``OSError``.
        """

    def open_result(self, job: Job) -> IO[bytes]:
        """Open the results of the job's current attempt for reading at any position.

        Raises ``FileNotFoundError`` if there are none, ``OSError``.
        """

    def remove(self, job: Job) -> None:
        """Remove all files of a job. Idempotent; raises ``OSError`` if some can't be removed."""

    def stored_uuids(self) -> Sequence[str]:
        """Return the UUIDs under which files are stored, orphans included."""
