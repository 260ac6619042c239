"""Inputs and results that are stored in the database, each as one blob in a table of its own.

The table ``jobs`` has no blobs: the row of a job is updated several times, and SQLite writes
a row as a whole.
"""

from collections import OrderedDict

from job_orchestrator.common.status import JobStatus
from job_orchestrator.server.model import Job
from job_orchestrator.server.store.sqlite.connection import Connection

ADD_INPUTS = "INSERT INTO job_inputs (job_id, files) VALUES (?, ?)"
ADD_RESULT = "INSERT OR REPLACE INTO job_results (job_id, zip) VALUES (?, ?)"
INPUTS = "SELECT files FROM job_inputs WHERE job_id = ?"
INPUTS_OF_ARRAY = "SELECT files FROM array_inputs WHERE array_id = ?"
RESULT = "SELECT zip FROM job_results WHERE job_id = ?"

MAX_RECENT_BYTES = 2 << 20
"""Bytes of inputs, and of results, in memory. Both are mostly read within a second."""


class SqliteContents:
    """Reads inputs and results that are stored in the database. Recent ones are in memory."""

    def __init__(self, reader: Connection) -> None:
        self._reader = reader
        self._inputs = _RecentBlobs()
        self._results = _RecentBlobs()

    async def inputs(self, job: Job) -> bytes | None:
        """Return the inputs of a job, None if they are not in the database."""
        statement = INPUTS if job.array_id is None else INPUTS_OF_ARRAY
        holder = _holder(job)
        found = self._inputs.get(holder) or await self._read(statement, holder)
        if found is not None and job.array_id is not None:
            # Its other tasks need them as well.
            self._inputs.add(holder, found)
        return found

    async def result(self, job: Job) -> bytes | None:
        """Return the results of a job, None if they are not in the database."""
        return self._results.get(job.id) or await self._read(RESULT, job.id)

    def created(self, job: Job, inputs: bytes | None) -> None:
        """Keep the inputs of a job that was committed."""
        if inputs is not None:
            self._inputs.add(_holder(job), inputs)

    def changed(self, job: Job, result: bytes | None) -> None:
        """Follow a committed change: keep results, drop inputs that will not be read again."""
        if job.status.has_ended and job.array_id is None:
            self._inputs.drop(job.id)
        if result is not None:
            self._results.add(job.id, result)
        elif job.status is JobStatus.CLEANED:
            self._results.drop(job.id)

    async def _read(self, statement: str, number: int) -> bytes | None:
        rows = await self._reader.rows(statement, (number,))
        return bytes(rows[0][0]) if rows else None


def _holder(job: Job) -> int:
    """Return the id under which inputs are kept: that of the array of a task."""
    return job.id if job.array_id is None else job.array_id


class _RecentBlobs:
    """Cache of the blobs that were added last, bounded by their size."""

    def __init__(self) -> None:
        self._blobs: OrderedDict[int, bytes] = OrderedDict()
        self._size = 0

    def get(self, job_id: int) -> bytes | None:
        return self._blobs.get(job_id)

    def add(self, job_id: int, blob: bytes) -> None:
        self.drop(job_id)
        self._blobs[job_id] = blob
        self._size += len(blob)
        while self._size > MAX_RECENT_BYTES:
            self._size -= len(self._blobs.popitem(last=False)[1])

    def drop(self, job_id: int) -> None:
        self._size -= len(self._blobs.pop(job_id, b""))
