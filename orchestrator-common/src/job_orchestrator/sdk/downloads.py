"""Downloads of results into files. A file has its name only once it is complete."""

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from pathlib import Path

import aiohttp

from job_orchestrator.common.messages.jobs import JobAnswer
from job_orchestrator.common.protocol.digests import MalformedDigest, sha256_of
from job_orchestrator.common.protocol.headers import REPR_DIGEST
from job_orchestrator.sdk.connection import Connection, read_all
from job_orchestrator.sdk.errors import (
    ConnectionBroken,
    LocalStorageFailed,
    NotCompleted,
    ResultsDamaged,
    ServerUnavailable,
)
from job_orchestrator.sdk.models import decode
from job_orchestrator.sdk.threads import in_thread
from job_orchestrator.sdk.uploads import Progress

ZIP = "application/zip"
BLOCK_BYTES = 1 << 20
MAX_DAMAGED = 3
"""Downloads with a wrong digest before giving up: a file that is damaged on the server stays so."""

PACKING_TIMEOUT_S = 330.0
"""The output of a running job is packed before the answer starts; the server allows 300 s."""


class Download:
    """Download of one file: the ZIP with the results of a job, or a file of them.

    A broken connection is resumed at the byte where it broke, if the results are still the same
    (``If-Range``); otherwise the download starts over. So it does if the file does not have
    the digest that the server has announced. ``may_be_state``: an answer that is not a ZIP is the
    state of the job.
    """

    def __init__(
        self,
        connection: Connection,
        path: str,
        progress: Progress | None,
        *,
        may_be_state: bool = True,
    ) -> None:
        self._connection = connection
        self._path = path
        self._progress = progress
        self._may_be_state = may_be_state
        self._etag = ""
        self._sha256: bytes | None = None
        self._done = 0
        self._total: int | None = None

    async def to(self, target: Path, *, overwrite: bool) -> None:
        """Download the file into ``target``. On failure ``target`` is left unchanged.

        Raises ``NotCompleted`` if the answer is a state and not a ZIP, ``LocalStorageFailed``, and
        other kinds of ``ApiError``.
        """
        part = _PartialFile(target, overwrite=overwrite)
        await in_thread(part.open)
        try:
            await self._fetch(part)
            await in_thread(part.finish)
        except BaseException:
            await in_thread(part.discard)
            raise

    async def _fetch(self, part: "_PartialFile") -> None:
        retries = self._connection.retries()
        damaged = 0
        while True:
            before = self._done
            try:
                await self._fetch_once(part)
                return self._check_digest(part)
            except ResultsDamaged as error:
                damaged += 1
                if damaged == MAX_DAMAGED:
                    raise
                self._done = 0
                await retries.wait_after(error)
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
            if self._may_be_state and response.content_type != ZIP:
                answer = decode(await read_all(response), JobAnswer, self._connection.url)
                raise NotCompleted(
                    f"Job {answer.id} is {answer.status}: {answer.message}", answer.status
                )
            if response.status != HTTPStatus.PARTIAL_CONTENT:
                self._done, self._total = 0, response.content_length
                self._etag = response.headers.get("ETag", "")
                self._sha256 = self._announced(response)
            await self._receive(response, part)
        if self._total is not None and self._done != self._total:
            url = self._connection.url
            raise ConnectionBroken(f"{url} sent {self._done} of {self._total} bytes")

    def _announced(self, response: aiohttp.ClientResponse) -> bytes | None:
        try:
            return sha256_of(response.headers.get(REPR_DIGEST))
        except MalformedDigest as error:
            url = self._connection.url
            raise ConnectionBroken(f"{url} sent a digest that can't be read: {error}") from error

    def _check_digest(self, part: "_PartialFile") -> None:
        if self._sha256 is not None and part.sha256 != self._sha256:
            raise ResultsDamaged(
                f"The results that {self._connection.url} sent are damaged: their SHA-256 digest is"
                f" {part.sha256.hex()} and must be {self._sha256.hex()}. Download them again; if"
                " that does not help, ask the administrator for jo-server check --digests"
            )

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

    def __init__(self, target: Path, *, overwrite: bool) -> None:
        self._target = target
        self._overwrite = overwrite
        self._path = target.with_name(f".{target.name[:200]}.{secrets.token_hex(4)}.part")

    @property
    def sha256(self) -> bytes:
        """SHA-256 digest of the file."""
        return self._digest.digest()

    def open(self) -> None:
        """Create the file. The target's folder must exist, and the target only if replaced."""
        if not self._overwrite and os.path.lexists(self._target):
            raise self._exists()
        with self._storage_errors():
            # With the permissions of the umask; a file of tempfile would be private.
            self._file = self._path.open("xb")
        self._digest = hashlib.sha256()

    def write_at(self, offset: int, blocks: list[bytes]) -> int:
        """Write ``blocks`` at ``offset``: the end of the file, or 0 to start over.

        Returns the new length of the file.
        """
        with self._storage_errors():
            if offset == 0:
                self._digest = hashlib.sha256()
            self._file.seek(offset)
            self._file.writelines(blocks)
            for block in blocks:
                self._digest.update(block)
            self._file.truncate()
            return self._file.tell()

    def finish(self) -> None:
        """Flush the file to the disk and give it the name of the target."""
        with self._storage_errors():
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            if self._overwrite:
                self._path.replace(self._target)
            else:
                self._rename_to_a_free_name()

    def discard(self) -> None:
        """Remove the file."""
        with suppress(OSError):
            self._file.close()
        self._path.unlink(missing_ok=True)

    def _rename_to_a_free_name(self) -> None:
        try:
            # Unlike a renaming, it fails if the target has appeared in the meantime.
            self._target.hardlink_to(self._path)
        except FileExistsError:
            raise self._exists() from None
        except OSError:  # a file system without hard links
            if os.path.lexists(self._target):
                raise self._exists() from None
            self._path.replace(self._target)
        else:
            self._path.unlink()

    def _exists(self) -> LocalStorageFailed:
        return LocalStorageFailed(
            f"{self._target} exists already: give another name, or replace it with overwrite=True"
        )

    @contextmanager
    def _storage_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise LocalStorageFailed(
                f"{self._target} can't be written: {error.strerror or error}"
            ) from error
