"""Streamed multipart/form-data to files: constant memory at any size.

The body is parsed by python-multipart's callback parser. Parsing, writing, and what the caller does
with the whole form happen together in a thread, a block at a time, so that a small upload costs one
thread hop and a large one never holds up the event loop.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from job_orchestrator.common.errors import BadRequest, DomainError, TooLarge
from job_orchestrator.common.protocol.multipart_names import parse_part_names
from job_orchestrator.common.protocol.paths import collision, parents, uploaded_path
from job_orchestrator.common.runtime.threads import in_thread
from job_orchestrator.common.storage.durable import WriteBehind, full_disk_as_domain_error

BLOCK_BYTES = 1 << 20
MAX_FIELD_BYTES = 1 << 16
MAX_FIELDS = 100
MAX_HEAD_LINE_BYTES = 8192
"""Of a part: the longest path, escaped, three times."""

MAX_OVERHEAD_BYTES = 128 << 20
"""What a body may be beside its files: heads with the longest names, and fields."""


R = TypeVar("R")


class BodyTimeout(DomainError):
    """The sender stopped sending in the middle of a body."""


class MultipartError(BadRequest):
    """The body is not well-formed multipart/form-data."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"Multipart error: {reason}")


class BodyStream(Protocol):
    """The part of ``aiohttp.StreamReader`` that is needed here."""

    async def readany(self) -> bytes:
        """Return what has arrived, or b"" at the end."""


@dataclass(frozen=True)
class FormLimits:
    """What is accepted.

    ``max_bytes`` counts the content of all files together, ``max_folders`` those that their paths
    need: a short upload can name millions. ``idle_s`` is how long the sender may send nothing.
    ``min_rate`` are the bytes that must come in a second, averaged over the time that was spent
    waiting for the sender, after ``idle_s`` of it; 0: any rate will do.
    """

    max_bytes: int
    max_files: int = 20_000
    max_folders: int = 20_000
    idle_s: float = 60.0
    min_rate: int = 0


@dataclass
class ReceivedForm:
    """A form that arrived whole: sizes in bytes by file path, and the values of its fields."""

    files: dict[str, int] = field(default_factory=dict)
    fields: dict[str, str] = field(default_factory=dict)


async def receive_form(
    stream: BodyStream,
    content_type: str,
    folder: Path,
    limits: FormLimits,
    complete: Callable[[ReceivedForm], R],
    *,
    write_behind: bool = False,
) -> R:
    """Write the files of a multipart body below ``folder``, which is made with its parents.

    Returns what ``complete``, called in a thread with the whole form, makes of it. Nothing is
    flushed to the disk, and nothing is cleaned up here: on any error the caller removes ``folder``.
    ``write_behind``: a flush will follow, so the disk begins with large files while they arrive.

    Raises ``MultipartError``, ``UnsafePath``, ``TooLarge``, ``BadRequest`` (two files of one name),
    ``BodyTimeout``, ``StorageFull``; and what ``stream`` raises when the connection breaks.
    """
    writer = _FormWriter(_boundary(content_type), folder, limits, write_behind=write_behind)

    def finish(rest: bytes) -> R:
        writer.feed(rest)
        form = writer.finish()
        with full_disk_as_domain_error():
            return complete(form)

    arriving = _Arriving(stream, limits)
    try:
        while True:
            blocks, ended = await arriving.next_blocks()
            if ended:
                return await in_thread(finish, b"".join(blocks))
            await in_thread(writer.feed, b"".join(blocks))
    finally:
        writer.close()


class _Arriving:
    """A body on its way, from a sender who must not be slow."""

    def __init__(self, stream: BodyStream, limits: FormLimits) -> None:
        self._stream = stream
        self._limits = limits
        self._bytes = 0
        self._waited_s = 0.0

    async def next_blocks(self) -> tuple[list[bytes], bool]:
        """About ``BLOCK_BYTES`` of the body, or its rest; and whether that was the end."""
        blocks: list[bytes] = []
        size = 0
        while size < BLOCK_BYTES:
            block = await self._next()
            if not block:
                return blocks, True
            blocks.append(block)
            size += len(block)
        return blocks, False

    async def _next(self) -> bytes:
        """What arrives next. Raises ``BodyTimeout``."""
        clock = asyncio.get_running_loop().time
        begun = clock()
        try:
            async with asyncio.timeout(self._limits.idle_s):
                block = await self._stream.readany()
        except TimeoutError:
            raise BodyTimeout(
                f"No data arrived for {self._limits.idle_s:g} s; the upload was dropped"
            ) from None
        self._waited_s += clock() - begun
        self._bytes += len(block)
        if self._bytes > self._limits.max_bytes + MAX_OVERHEAD_BYTES:
            # Of a body that tells no length nothing else is a bound: what comes after its end, say.
            raise TooLarge(f"File too large: at most {self._limits.max_bytes} bytes in all")
        late_s = self._waited_s - self._limits.idle_s
        if late_s > 0 and self._bytes < self._limits.min_rate * late_s:
            raise BodyTimeout(
                f"The data came slower than {self._limits.min_rate} bytes a second;"
                " the upload was dropped"
            )
        return block


def _boundary(content_type: str) -> bytes:
    # Headers may hold any bytes; the parser takes those that are Latin-1.
    header = content_type.encode("utf-8", "surrogateescape").decode("latin-1")
    kind, options = parse_options_header(header)
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not boundary:
        raise MultipartError("Content-Type must be multipart/form-data with a boundary")
    return boundary


class _FormWriter:
    """The parser and the file that it writes just now. Used by one thread at a time."""

    def __init__(
        self, boundary: bytes, folder: Path, limits: FormLimits, *, write_behind: bool
    ) -> None:
        self._folder = folder
        self._write_behind = write_behind
        self._limits = limits
        self._begun = False
        self._form = ReceivedForm()
        self._folders: set[str] = set()
        self._bytes = 0
        self._ended = False
        self._header: tuple[bytearray, bytearray] = (bytearray(), bytearray())
        self._disposition = ""
        self._file: int | None = None
        self._behind: WriteBehind | None = None
        self._path = ""
        self._field: tuple[str, bytearray] | None = None
        self._fields_begun = 0
        callbacks: dict[str, Callable[..., None]] = {
            "on_part_begin": self._begin_part,
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._open_part,
            "on_part_data": self._part_data,
            "on_part_end": self._end_part,
            "on_end": self._end,
        }
        try:
            self._parser = MultipartParser(
                boundary,
                callbacks,  # type: ignore[arg-type]
                max_header_size=MAX_HEAD_LINE_BYTES,
            )
        except FormParserError as error:
            raise MultipartError(str(error)) from error

    def feed(self, block: bytes) -> None:
        """Parse and write ``block``."""
        with full_disk_as_domain_error():
            if not self._begun:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._begun = True
            try:
                self._parser.write(block)
            except FormParserError as error:
                raise MultipartError(str(error)) from error

    def finish(self) -> ReceivedForm:
        """Return the form, if the body had its end."""
        if not self._ended:
            raise MultipartError("the body ends before its closing boundary")
        return self._form

    def close(self) -> None:
        """Close a file that was left open by an error."""
        if self._file is not None:
            file, self._file = self._file, None
            # Its content is given up.
            with contextlib.suppress(OSError):
                os.close(file)

    def _begin_part(self) -> None:
        self._disposition = ""

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._header[0].extend(data[start:end])

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._header[1].extend(data[start:end])

    def _end_header(self) -> None:
        name, value = self._header
        if bytes(name).lower() == b"content-disposition":
            self._disposition = value.decode("latin-1")
        self._header = (bytearray(), bytearray())

    def _open_part(self) -> None:
        try:
            name, filename = parse_part_names(self._disposition)
        except ValueError as error:
            raise MultipartError(str(error)) from error
        if filename:
            self._open_file(uploaded_path(name, filename))
        elif self._fields_begun >= MAX_FIELDS:
            raise TooLarge(f"More than {MAX_FIELDS} fields")
        else:
            self._fields_begun += 1
            self._field = (name, bytearray())

    def _open_file(self, path: str) -> None:
        if len(self._form.files) >= self._limits.max_files:
            raise TooLarge(f"More than {self._limits.max_files} files")
        problem = collision(path, self._form.files.keys(), self._folders)
        if problem is not None:
            raise BadRequest(problem)
        for parent in reversed(parents(path)):
            if parent not in self._folders:
                if len(self._folders) >= self._limits.max_folders:
                    raise TooLarge(f"More than {self._limits.max_folders} folders")
                os.mkdir(f"{self._folder}/{parent}")  # noqa: PTH102
                self._folders.add(parent)
        self._form.files[path] = 0
        self._path = path
        # A descriptor: what arrives comes in blocks already, and a file object costs more calls.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        # Strings, no paths: there may be thousands of files.
        self._file = os.open(f"{self._folder}/{path}", flags, 0o666)
        self._behind = WriteBehind(self._file) if self._write_behind else None

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        size = end - start
        if self._file is not None:
            self._bytes += size
            if self._bytes > self._limits.max_bytes:
                raise TooLarge(f"File too large: at most {self._limits.max_bytes} bytes in all")
            _write_all(self._file, memoryview(data)[start:end])
            self._form.files[self._path] += size
            if self._behind is not None:
                self._behind.wrote(size)
        elif self._field is not None:
            name, value = self._field
            if len(value) + size > MAX_FIELD_BYTES:
                raise TooLarge(f"Field {name!r} is larger than {MAX_FIELD_BYTES} bytes")
            value.extend(data[start:end])

    def _end_part(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            os.close(file)
        elif self._field is not None:
            name, value = self._field
            self._form.fields[name] = value.decode("utf-8", "replace")
            self._field = None

    def _end(self) -> None:
        self._ended = True


def _write_all(file: int, data: memoryview) -> None:
    while data:
        data = data[os.write(file, data) :]
