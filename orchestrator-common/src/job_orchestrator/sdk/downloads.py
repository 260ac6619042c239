"""Downloads of results into files. A file has its name only once it is complete."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from pathlib import Path

import aiohttp

from job_orchestrator.common.messages import JobAnswer
from job_orchestrator.sdk.connection import Connection, read_all
from job_orchestrator.sdk.errors import (
    ConnectionBroken,
    LocalStorageFailed,
    NotCompleted,
    ServerUnavailable,
)
from job_orchestrator.sdk.models import decode
from job_orchestrator.sdk.threads import in_thread
from job_orchestrator.sdk.uploads import Progress

ZIP = "application/zip"
BLOCK_BYTES = 1 << 20
PACKING_TIMEOUT_S = 330.0
"""The output of a running job is packed before the answer starts; the server allows 300 s."""


class Download:
    """Download of one ZIP file.

    A broken connection is resumed at the byte where it broke, if the results are still the same
    (``If-Range``); otherwise the download starts over.
    """

    def __init__(self, connection: Connection, path: str, progress: Progress | None) -> None:
        self._connection = connection
        self._path = path
        self._progress = progress
        self._etag = ""
        self._done = 0
        self._total: int | None = None

    async def to(self, target: Path) -> None:
        """Download the ZIP into ``target``. On failure ``target`` is left unchanged.

        Raises ``NotCompleted`` if the answer is a state and not a ZIP, ``LocalStorageFailed``, and
        other kinds of ``ApiError``.
        """
        part = _PartialFile(target)
        await in_thread(part.open)
        try:
            await self._fetch(part)
            await in_thread(part.finish)
        except BaseException:
            await in_thread(part.discard)
            raise

    async def _fetch(self, part: "_PartialFile") -> None:
        retries = self._connection.retries()
        while True:
            before = self._done
            try:
                return await self._fetch_once(part)
            except ServerUnavailable as error:
                if self._done > before:
                    retries.reset()
                await retries.wait_after(error)

    async def _fetch_once(self, part: "_PartialFile") -> None:
        headers = {}
        if self._done and self._etag:
            headers = {"Range": f"bytes={self._done}-", "If-Range": self._etag}
        async with self._connection.open(
            "GET", self._path, headers=headers, read_timeout_s=PACKING_TIMEOUT_S
        ) as response:
            if response.content_type != ZIP:
                answer = decode(await read_all(response), JobAnswer, self._connection.url)
                raise NotCompleted(
                    f"Job {answer.id} is {answer.status}: {answer.message}", answer.status
                )
            if response.status != HTTPStatus.PARTIAL_CONTENT:
                self._done, self._total = 0, response.content_length
                self._etag = response.headers.get("ETag", "")
            await self._receive(response, part)
        if self._total is not None and self._done != self._total:
            url = self._connection.url
            raise ConnectionBroken(f"{url} sent {self._done} of {self._total} bytes")

    async def _receive(self, response: aiohttp.ClientResponse, part: "_PartialFile") -> None:
        """Write the body to the file, in large blocks."""
        gathered: list[bytes] = []
        size = 0
        try:
            async for block in response.content.iter_any():
                gathered.append(block)
                size += len(block)
                if size >= BLOCK_BYTES:
                    await self._write(part, gathered)
                    gathered, size = [], 0
        finally:
            # Also after a break: received bytes need not be sent again.
            await self._write(part, gathered)

    async def _write(self, part: "_PartialFile", blocks: list[bytes]) -> None:
        self._done = await in_thread(part.write_at, self._done, blocks)
        if self._progress is not None:
            self._progress(self._done, self._total)


class _PartialFile:
    """The incomplete file, in the folder of its target so that it can be renamed.

    All methods block: call them in a thread. They raise ``LocalStorageFailed``.
    """

    def __init__(self, target: Path) -> None:
        self._target = target
        self._path = target.with_name(f".{target.name[:200]}.{secrets.token_hex(4)}.part")

    def open(self) -> None:
        """Create the file. The target's folder must exist."""
        with self._storage_errors():
            # With the permissions of the umask; a file of tempfile would be private.
            self._file = self._path.open("xb")

    def write_at(self, offset: int, blocks: list[bytes]) -> int:
        """Write ``blocks`` at ``offset``, where the file ends then. Returns its new length."""
        with self._storage_errors():
            self._file.seek(offset)
            self._file.writelines(blocks)
            self._file.truncate()
            return self._file.tell()

    def finish(self) -> None:
        """Flush the file to the disk and give it the name of the target."""
        with self._storage_errors():
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._path.replace(self._target)

    def discard(self) -> None:
        """Remove the file."""
        with suppress(OSError):
            self._file.close()
        self._path.unlink(missing_ok=True)

    @contextmanager
    def _storage_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise LocalStorageFailed(
                f"{self._target} can't be written: {error.strerror or error}"
            ) from error
