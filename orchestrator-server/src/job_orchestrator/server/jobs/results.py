"""Access to the output of jobs: stored results, and the payload of a job that still runs."""

import asyncio
from dataclasses import dataclass
from typing import IO

from job_orchestrator.common.messages.jobs import ResultFile, ResultFiles
from job_orchestrator.common.runtime.limiter import KeyedLimiter
from job_orchestrator.common.runtime.threads import in_thread
from job_orchestrator.common.status import JobStatus
from job_orchestrator.server.clients.registry import Client, ClientRegistry
from job_orchestrator.server.errors import OutputNotFound
from job_orchestrator.server.files.base import ServedResult
from job_orchestrator.server.files.zip_reader import (
    EntryReader,
    find_entry,
    read_directory,
    read_entries,
)
from job_orchestrator.server.jobs.stored_files import StoredFiles
from job_orchestrator.server.model import Job

MAX_LISTED = 10_000


@dataclass(frozen=True)
class OpenFile:
    """One file of the results, ``size`` bytes long. Its opener closes ``content``.

    ``modified_ns`` is the time of the results in nanoseconds since the epoch.
    """

    size: int
    modified_ns: int
    content: EntryReader


class JobResults:
    """Finds the output of jobs. ``readers`` are those of single files, by user."""

    def __init__(self, files: StoredFiles, clients: ClientRegistry) -> None:
        self._files = files
        self._clients = clients
        self._reads = SharedReads(files)
        self.readers: KeyedLimiter[int] = KeyedLimiter()

    async def served(self, job: Job) -> ServedResult:
        """Return the stored results of a job. Raises ``OutputNotFound``."""
        _require_output(job)
        try:
            return await self._reads.read(job)
        except FileNotFoundError as error:
            raise _results_missing(job) from error

    async def open_file(self, job: Job, path: str) -> OpenFile:
        """Open one file of the stored results. Raises ``OutputNotFound``, ``NotAZip``."""
        archive = await self._open(job)
        found = await in_thread(_open_file, job, archive, path)
        if found is None:
            raise OutputNotFound(
                f"There is no file {path[:200]!r} in the results of job {job.id};"
                f" GET /jobs/{job.id}/files lists those that there are"
            )
        return found

    async def listing(self, job: Job) -> ResultFiles:
        """List the files in the stored results. Raises ``OutputNotFound``, ``NotAZip``."""
        return await in_thread(_listing, await self._open(job))

    async def _open(self, job: Job) -> IO[bytes]:
        _require_output(job)
        try:
            return await self._files.open_result(job)
        except FileNotFoundError as error:
            raise _results_missing(job) from error

    def payload_of(self, job: Job) -> tuple[Client, int]:
        """Return the client of a job and the id of its payload. Raises ``OutputNotFound``."""
        if job.status is JobStatus.CLEANED:
            raise OutputNotFound(f"Job {job.id} is Cleaned: its files were removed")
        client = self._clients.of(job)
        if client is None or job.dest_id is None:
            yet = "no output" if job.status.has_ended else "no output yet"
            raise OutputNotFound(f"Job {job.id} is {job.status} and has {yet}")
        return client, job.dest_id


class SharedReads:
    """Reads of results in progress: concurrent requests for the same results share one read.

    When a job ends, all requests that wait for the job ask for its results at the same moment.
    """

    def __init__(self, files: StoredFiles) -> None:
        self._files = files
        self._reads: dict[tuple[int, int], _Read] = {}

    async def read(self, job: Job) -> ServedResult:
        """Return the results of a job. Raises ``FileNotFoundError``, ``OSError``."""
        key = job.id, job.attempt
        while (shared := self._reads.get(key)) is not None:
            await shared.finished.wait()
            if shared.error is not None:
                raise shared.error
            if shared.result is not None:
                return shared.result
            # The request that was reading was cancelled: one of those that waited reads now.
        own = self._reads[key] = _Read()
        try:
            own.result = await self._files.served_result(job)
        except OSError as error:
            own.error = error
            raise
        finally:
            del self._reads[key]
            own.finished.set()
        return own.result


class _Read:
    """A read in progress. Without result and error, its request was cancelled."""

    def __init__(self) -> None:
        self.finished = asyncio.Event()
        self.result: ServedResult | None = None
        self.error: OSError | None = None


def _listing(archive: IO[bytes]) -> ResultFiles:
    """List the files in a ZIP, and close it."""
    listed: list[ResultFile] = []
    with archive:
        for entry in read_entries(archive, read_directory(archive)):
            if entry.is_folder:
                continue
            if len(listed) == MAX_LISTED:
                return ResultFiles(listed, truncated=True)
            listed.append(ResultFile(entry.path, entry.size))
    return ResultFiles(listed, truncated=False)


def _open_file(job: Job, archive: IO[bytes], path: str) -> OpenFile | None:
    """Open a file of a ZIP. Without it, close the ZIP and return None."""
    try:
        entry = find_entry(archive, path)
        if entry is not None and not entry.is_folder:
            modified_ns = int((job.ended_at or 0.0) * 10**9)
            return OpenFile(entry.size, modified_ns, EntryReader(archive, entry))
    except BaseException:
        archive.close()
        raise
    archive.close()
    return None


def _require_output(job: Job) -> None:
    if not job.has_output or job.status is JobStatus.CLEANED:
        raise OutputNotFound(f"Job {job.id} is {job.status} and has no output to download")


def _results_missing(job: Job) -> OutputNotFound:
    return OutputNotFound(f"The results of job {job.id} are missing from the server's storage")
