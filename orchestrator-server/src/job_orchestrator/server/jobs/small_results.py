"""Small results in memory, read once for all who ask for them at the same moment."""

import asyncio
from email.utils import formatdate
from pathlib import Path
from typing import NamedTuple

from job_orchestrator.common.runtime.threads import in_thread
from job_orchestrator.common.storage.small_file import read_if_small
from job_orchestrator.server.files.folder import JobFiles
from job_orchestrator.server.model import Job


class SmallResult(NamedTuple):
    """A ZIP, and what tells whether it is the same as another one."""

    content: bytes
    etag: str
    last_modified: str


class SmallResults:
    """Reads that are under way: a crowd that waits for the same job shares one."""

    def __init__(self, files: JobFiles) -> None:
        self._files = files
        self._reading: dict[tuple[int, int], _Reading] = {}

    async def read(self, job: Job) -> SmallResult | None:
        """The results of a job; None: send them from the disk, because they are large.

        Raises ``OSError``.
        """
        key = job.id, job.attempt
        reading = self._reading.get(key)
        if reading is not None:
            await reading.over.wait()
        else:
            reading = self._reading[key] = _Reading()
            try:
                await reading.read(self._files.result(job))
            finally:
                del self._reading[key]
        if reading.error is not None:
            raise reading.error
        return reading.result


class _Reading:
    """One read. Of one whose reader was cancelled there is no result."""

    def __init__(self) -> None:
        self.over = asyncio.Event()
        self.result: SmallResult | None = None
        self.error: OSError | None = None

    async def read(self, path: Path) -> None:
        try:
            self.result = await in_thread(_read, path)
        except OSError as error:
            self.error = error
        finally:
            self.over.set()


def _read(path: Path) -> SmallResult | None:
    small = read_if_small(path)
    if small is None:
        return None
    modified = formatdate(small.modified_ns // 10**9, usegmt=True)
    return SmallResult(small.content, etag(small.modified_ns, len(small.content)), modified)


def etag(modified_ns: int, size: int) -> str:
    """As aiohttp makes it for files: the same file has the same one, however it is sent."""
    return f'"{modified_ns:x}-{size:x}"'
