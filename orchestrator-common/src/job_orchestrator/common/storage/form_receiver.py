"""Receives multipart/form-data bodies: small ones into memory, others into files.

A small body is parsed in the event loop, because that costs less than a thread hop. For a larger
one, parsing, writing, and the caller's work with the complete form happen together in a thread, a
block at a time, in constant memory at any size.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from job_orchestrator.common.errors import DomainError, FilesTooLarge
from job_orchestrator.common.protocol.multipart_reader import MultipartReader, read_whole
from job_orchestrator.common.runtime.threads import in_thread
from job_orchestrator.common.storage.durable import full_disk_as_domain_error
from job_orchestrator.common.storage.form_writer import (
    Fields,
    FilesInFolder,
    FilesInMemory,
    FormLimits,
    FormWriter,
    NotSmall,
    ReceivedForm,
)

BLOCK_BYTES = 1 << 20
SMALL_OVERHEAD_BYTES = 1 << 16
"""Bytes that a small body may have in addition to its files: heads of parts, fields."""

R = TypeVar("R")

"""The values of each field of a form, in the order in which they were sent."""


class BodyTimeout(DomainError):
    """The sender stopped sending in the middle of a body."""


class BodyStream(Protocol):
    """The part of ``aiohttp.StreamReader`` that is needed here."""

    async def readany(self) -> bytes:
        """Return the bytes that have arrived, or b"" at the end."""

    def is_eof(self) -> bool:
        """Return whether all of the body has arrived."""

    def at_eof(self) -> bool:
        """Return whether all of the body has arrived, and has been read."""


async def receive_form(
    stream: BodyStream,
    content_type: str,
    folder: Callable[[], Path],
    limits: FormLimits,
    complete: Callable[[ReceivedForm], R],
    *,
    small_bytes: int = 0,
    write_behind: bool = False,
    wants_digests: Callable[[Fields], bool] = lambda _: False,
) -> R:
    """Receive a multipart body, and return the result of ``complete`` for the complete form.

    Files that have at most ``small_bytes`` together are kept in memory (``ReceivedForm.small``),
    and ``complete`` is called in the event loop. Others are written below the path that ``folder``
    returns, which is created with its parents, and ``complete`` is called in a thread. Nothing is
    flushed to the disk, and nothing is cleaned up: on any error the caller removes the folder.
    ``write_behind``: a flush follows, so large files are written to the disk while they arrive.
    ``wants_digests`` decides for each file, from the fields before it, whether it gets a digest.

    Raises ``MultipartError``, ``UnsafePath``, ``TooLarge``, ``BadRequest`` (two files of one name),
    ``BodyTimeout``, ``StorageFull``, and the errors of ``stream`` when the connection breaks.
    """
    body = _Body(stream, limits)
    block, ended = b"", False
    if small_bytes:
        block, ended = await body.next_block(small_bytes + SMALL_OVERHEAD_BYTES)
        if ended and (form := _small_form(block, content_type, limits, small_bytes, wants_digests)):
            return complete(form)
    writer = FormWriter(FilesInFolder(folder(), write_behind=write_behind), limits, wants_digests)
    reader = MultipartReader(content_type, writer)

    def feed(block: bytes) -> None:
        with full_disk_as_domain_error():
            writer.prepare()
            reader.feed(block)

    def finish(rest: bytes) -> R:
        feed(rest)
        reader.finish()
        with full_disk_as_domain_error():
            return complete(writer.form)

    try:
        while not ended:
            if block:
                await in_thread(feed, block)
            block, ended = await body.next_block(BLOCK_BYTES)
        return await in_thread(finish, block)
    finally:
        writer.close()


def _small_form(
    body: bytes,
    content_type: str,
    limits: FormLimits,
    small_bytes: int,
    wants_digests: Callable[[Fields], bool],
) -> ReceivedForm | None:
    """Parse a whole body in memory. Returns None if its files are not small. Raises its errors."""
    files = FilesInMemory(small_bytes)
    writer = FormWriter(files, limits, wants_digests)
    try:
        read_whole(content_type, body, writer)
    except NotSmall:
        return None
    writer.form.small = files.content()
    return writer.form


class _Body:
    """A body that arrives from a sender, which must not be too slow."""

    def __init__(self, stream: BodyStream, limits: FormLimits) -> None:
        self._stream = stream
        self._limits = limits
        self._bytes = 0
        self._waited_s = 0.0

    async def next_block(self, least_bytes: int) -> tuple[bytes, bool]:
        """Return at least ``least_bytes`` of the body, or its rest, and whether it has ended."""
        pieces: list[bytes] = []
        size = 0
        while size < least_bytes:
            piece = await self._next_piece()
            if not piece:
                return b"".join(pieces), True
            pieces.append(piece)
            size += len(piece)
            if self._stream.at_eof():
                return b"".join(pieces), True
        return b"".join(pieces), False

    async def _next_piece(self) -> bytes:
        if self._stream.is_eof():  # nothing to wait for
            piece = await self._stream.readany()
        else:
            piece = await self._wait_for_piece()
        self._bytes += len(piece)
        if self._bytes > self._limits.max_bytes + self._limits.max_overhead_bytes:
            # The only bound of a body without Content-Length, for example of bytes after its end.
            raise FilesTooLarge(self._limits.max_bytes)
        late_s = self._waited_s - self._limits.idle_s
        if late_s > 0 and self._bytes < self._limits.min_rate * late_s:
            raise BodyTimeout(
                f"The data came slower than {self._limits.min_rate} bytes a second;"
                " the upload was dropped"
            )
        return piece

    async def _wait_for_piece(self) -> bytes:
        clock = asyncio.get_running_loop().time
        begun = clock()
        try:
            async with asyncio.timeout(self._limits.idle_s):
                piece = await self._stream.readany()
        except TimeoutError:
            raise BodyTimeout(
                f"No data arrived for {self._limits.idle_s:g} s; the upload was dropped"
            ) from None
        self._waited_s += clock() - begun
        return piece
