"""Access to the output of jobs: stored results, and the payload of a job that still runs."""

import asyncio
from typing import IO

from job_orchestrator.common.messages.jobs import ResultFile, ResultFiles
from job_orchestrator.common.runtime.threads import in_thread
from job_orchestrator.common.status import JobStatus
from job_orchestrator.server.clients.registry import Client, ClientRegistry
from job_orchestrator.server.errors import OutputNotFound
from job_orchestrator.server.files.base import ServedResult
from job_orchestrator.server.files.zip_reader import read_directory, read_entries
from job_orchestrator.server.jobs.stored_files import StoredFiles
from job_orchestrator.server.model import Job

MAX_LISTED = 10_000


class JobResults:
    """Finds the output of jobs."""

    def __init__(self, files: StoredFiles, clients: ClientRegistry) -> None:
        self._files = files
        self._clients = clients
        self._reads = SharedReads(files)

    async def served(self, job: Job) -> ServedResult:
        """Return the stored results of a job. Raises ``OutputNotFound``."""
        _require_output(job)
        try:
            return await self._reads.read(job)
        except FileNotFoundError as error:
            raise _results_missing(job) from error

    async def listing(self, job: Job) -> ResultFiles:
        """List the files in the stored results. Raises ``OutputNotFound``, ``NotAZip``."""
        _require_output(job)
        try:
            archive = await self._files.open_result(job)
        except FileNotFoundError as error:
            raise _results_missing(job) from error
        return await in_thread(_listing, archive)

    def payload_of(self, job: Job) -> tuple[Client, int]:
        """Return the client of a job and the id of its payload. Raises ``OutputNotFound``."""
        if job.status is JobStatus.CLEANED:
            raise OutputNotFound(f"Job {job.id} is Cleaned: its files were removed")
        client = self._clients.get(job.client)
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


def _require_output(job: Job) -> None:
    if not job.has_output or job.status is JobStatus.CLEANED:
        raise OutputNotFound(f"Job {job.id} is {job.status} and has no output to download")


def _results_missing(job: Job) -> OutputNotFound:
    return OutputNotFound(f"The results of job {job.id} are missing from the server's storage")
