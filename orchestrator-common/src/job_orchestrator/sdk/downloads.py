"""Results on their way to this machine: whole under their name, or not there at all."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from pathlib import Path

import aiohttp

from job_orchestrator.common.runtime.threads import in_thread
from job_orchestrator.sdk.connection import Connection, read_all
from job_orchestrator.sdk.errors import (
    ApiError,
    ConnectionBroken,
    NotCompleted,
    ServerUnavailable,
)
from job_orchestrator.sdk.models import Submitted, decode
from job_orchestrator.sdk.uploads import Progress

ZIP = "application/zip"
BLOCK_BYTES = 1 << 20
PACKING_TIMEOUT_S = 330.0
"""The output of a running job is packed before its answer begins; the server allows 300 s."""


class LocalStorageFailed(ApiError):
    """What was fetched can't be written on this machine."""


class Download:
    """A ZIP of the server's, fetched into a file.

    What has come when the connection breaks is kept and the rest is asked for, if the results are
    still the same (``If-Range``); else it begins anew.
    """

    def __init__(self, connection: Connection, path: str, progress: Progress | None) -> None:
        self._connection = connection
        self._path = path
        self._progress = progress
        self._etag = ""
        self._done = 0
        self._total: int | None = None

    async def to(self, target: Path) -> None:
        """Make ``target`` the ZIP. Until then, and if it fails, the name is as it was before.

        Raises ``NotCompleted`` if there is no ZIP but a state, and other kinds of ``ApiError``.
        """
        part = _Part(target)
        await in_thread(part.open)
        try:
            await self._fetch(part)
            await in_thread(part.finish)
        except BaseException:
            await in_thread(part.drop)
            raise

    async def _fetch(self, part: "_Part") -> None:
        patience = self._connection.patience()
        while True:
            before = self._done
            try:
                return await self._attempt(part)
            except ServerUnavailable as error:
                if self._done > before:
                    patience.renew()
                await patience.pause(error)

    async def _attempt(self, part: "_Part") -> None:
        headers = {}
        if self._done and self._etag:
            headers = {"Range": f"bytes={self._done}-", "If-Range": self._etag}
        async with self._connection.open(
            "GET", self._path, headers=headers, silence_s=PACKING_TIMEOUT_S
        ) as response:
            if response.content_type != ZIP:
                said = decode(await read_all(response), Submitted, self._connection.url)
                raise NotCompleted(f"Job {said.id} is {said.status}: {said.message}", said.status)
            if response.status != HTTPStatus.PARTIAL_CONTENT:
                self._done, self._total = 0, response.content_length
                self._etag = response.headers.get("ETag", "")
            await self._take(response, part)
        if self._total is not None and self._done != self._total:
            url = self._connection.url
            raise ConnectionBroken(f"{url} sent {self._done} of {self._total} bytes")

    async def _take(self, response: aiohttp.ClientResponse, part: "_Part") -> None:
        """Write the body from ``done`` on, in large blocks."""
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
            # Also what came before a break: it need not come again.
            await self._write(part, gathered)

    async def _write(self, part: "_Part", blocks: list[bytes]) -> None:
        self._done = await in_thread(part.write_at, self._done, blocks)
        if self._progress is not None:
            self._progress(self._done, self._total)


class _Part:
    """The file that grows beside its later name, in the same folder so that it can be renamed.

    All methods block, and raise ``LocalStorageFailed``.
    """

    def __init__(self, target: Path) -> None:
        self._target = target
        self._path = target.with_name(f".{target.name[:200]}.{secrets.token_hex(4)}.part")

    def open(self) -> None:
        """Make it; the target's folder must exist."""
        with self._told():
            # As permitted by umask, not private like files of tempfile.
            self._file = self._path.open("xb")

    def write_at(self, place: int, blocks: list[bytes]) -> int:
        """Write ``blocks`` from ``place`` on, where the file then ends. Returns the new place."""
        with self._told():
            self._file.seek(place)
            self._file.writelines(blocks)
            self._file.truncate()
            return self._file.tell()

    def finish(self) -> None:
        """Put it under its name."""
        with self._told():
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._path.replace(self._target)

    def drop(self) -> None:
        """Remove it."""
        with suppress(OSError):
            self._file.close()
        self._path.unlink(missing_ok=True)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise LocalStorageFailed(
                f"{self._target} can't be written: {error.strerror or error}"
            ) from error
