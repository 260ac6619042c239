"""Receives multipart/form-data bodies into files: constant memory at any size.

Parsing, writing, and the caller's work with the complete form happen together in a thread, a block
at a time. A small upload costs one thread hop, and a large one never blocks the event loop.
"""

import asyncio
import contextlib
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from job_orchestrator.common.errors import BadRequest, DomainError, FilesTooLarge, TooLarge
from job_orchestrator.common.protocol.multipart_reader import MultipartReader
from job_orchestrator.common.protocol.paths import collision, parents
from job_orchestrator.common.runtime.threads import in_thread
from job_orchestrator.common.storage.durable import WriteBehind, full_disk_as_domain_error

BLOCK_BYTES = 1 << 20
MAX_FIELD_BYTES = 1 << 16
MAX_FIELDS = 100

R = TypeVar("R")

Fields = Mapping[str, Sequence[str]]
"""The values of each field of a form, in the order in which they were sent."""


class BodyTimeout(DomainError):
    """The sender stopped sending in the middle of a body."""


class BodyStream(Protocol):
    """The part of ``aiohttp.StreamReader`` that is needed here."""

    async def readany(self) -> bytes:
        """Return the bytes that have arrived, or b"" at the end."""


@dataclass(frozen=True)
class FormLimits:
    """Limits of a form and of its transfer.

    ``max_bytes`` limits the content of all files together, ``max_overhead_bytes`` all other bytes
    of the body: heads with the longest names, and fields. ``max_folders`` limits the folders that
    paths need: a short upload can name millions. ``idle_s`` is how long the sender may send
    nothing. ``min_rate`` is the least average rate in bytes a second, of the time spent waiting for
    the sender, after ``idle_s`` of it; 0: any rate.
    """

    max_bytes: int
    max_files: int = 20_000
    max_folders: int = 20_000
    idle_s: float = 60.0
    min_rate: int = 0
    max_overhead_bytes: int = 128 << 20


@dataclass
class ReceivedForm:
    """A complete form: sizes in bytes by file path, and the values of each of its fields.

    ``digests`` has the SHA-256 of the content by file path, where they were wanted.
    """

    files: dict[str, int] = field(default_factory=dict)
    fields: dict[str, list[str]] = field(default_factory=dict)
    digests: dict[str, bytes] = field(default_factory=dict)


async def receive_form(
    stream: BodyStream,
    content_type: str,
    folder: Path,
    limits: FormLimits,
    complete: Callable[[ReceivedForm], R],
    *,
    write_behind: bool = False,
    wants_digests: Callable[[Fields], bool] = lambda _: False,
) -> R:
    """Write the files of a multipart body below ``folder``, which is created with its parents.

    Returns the result of ``complete``, which is called in a thread with the complete form. Nothing
    is flushed to the disk, and nothing is cleaned up: on any error the caller removes ``folder``.
    ``write_behind``: a flush follows, so large files are written to the disk while they arrive.
    ``wants_digests`` decides for each file, from the fields before it, whether it gets a digest.

    Raises ``MultipartError``, ``UnsafePath``, ``TooLarge``, ``BadRequest`` (two files of one name),
    ``BodyTimeout``, ``StorageFull``, and the errors of ``stream`` when the connection breaks.
    """
    writer = _FormWriter(folder, limits, wants_digests, write_behind=write_behind)
    reader = MultipartReader(content_type, writer)

    def feed(block: bytes) -> None:
        with full_disk_as_domain_error():
            writer.create_folder()
            reader.feed(block)

    def finish(rest: bytes) -> R:
        feed(rest)
        reader.finish()
        with full_disk_as_domain_error():
            return complete(writer.form)

    body = _Body(stream, limits)
    try:
        while True:
            block, ended = await body.next_block()
            if ended:
                return await in_thread(finish, block)
            await in_thread(feed, block)
    finally:
        writer.close()


class _Body:
    """A body that arrives from a sender, which must not be too slow."""

    def __init__(self, stream: BodyStream, limits: FormLimits) -> None:
        self._stream = stream
        self._limits = limits
        self._bytes = 0
        self._waited_s = 0.0

    async def next_block(self) -> tuple[bytes, bool]:
        """Return about ``BLOCK_BYTES`` of the body, or its rest, and whether it has ended."""
        pieces: list[bytes] = []
        size = 0
        while size < BLOCK_BYTES:
            piece = await self._next_piece()
            if not piece:
                return b"".join(pieces), True
            pieces.append(piece)
            size += len(piece)
        return b"".join(pieces), False

    async def _next_piece(self) -> bytes:
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


class _FormWriter:
    """Writes the parts of a form: files below a folder, fields to memory.

    A ``PartSink``. Used by one thread at a time.
    """

    def __init__(
        self,
        folder: Path,
        limits: FormLimits,
        wants_digests: Callable[[Fields], bool],
        *,
        write_behind: bool,
    ) -> None:
        self.form = ReceivedForm()
        self._wants_digests = wants_digests
        self._folder = folder
        self._limits = limits
        self._write_behind = write_behind
        self._folder_exists = False
        self._subfolders: set[str] = set()
        self._bytes = 0
        self._fields = 0
        self._file: int | None = None
        self._path = ""
        self._writeback: WriteBehind | None = None
        self._digest: hashlib._Hash | None = None
        self._field: tuple[str, bytearray] | None = None

    def create_folder(self) -> None:
        """Create the folder at the first call."""
        if not self._folder_exists:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._folder_exists = True

    def open_file(self, path: str) -> None:
        """Create a file. Raises ``TooLarge``, ``BadRequest``."""
        if len(self.form.files) >= self._limits.max_files:
            raise TooLarge(f"More than {self._limits.max_files} files")
        problem = collision(path, self.form.files.keys(), self._subfolders)
        if problem is not None:
            raise BadRequest(problem)
        for parent in reversed(parents(path)):
            if parent not in self._subfolders:
                if len(self._subfolders) >= self._limits.max_folders:
                    raise TooLarge(f"More than {self._limits.max_folders} folders")
                os.mkdir(f"{self._folder}/{parent}")  # noqa: PTH102
                self._subfolders.add(parent)
        self.form.files[path] = 0
        self._path = path
        # A descriptor, because data arrives in blocks already and a file object costs more calls;
        # a string, because there may be thousands of files.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._file = os.open(f"{self._folder}/{path}", flags, 0o666)
        self._writeback = WriteBehind(self._file) if self._write_behind else None
        self._digest = hashlib.sha256() if self._wants_digests(self.form.fields) else None

    def open_field(self, name: str) -> None:
        """Begin a field. Raises ``TooLarge``."""
        if self._fields >= MAX_FIELDS:
            raise TooLarge(f"More than {MAX_FIELDS} fields")
        self._fields += 1
        self._field = (name, bytearray())

    def write(self, data: memoryview) -> None:
        """Append to the open file or field. Raises ``TooLarge``."""
        if self._file is not None:
            self._bytes += len(data)
            if self._bytes > self._limits.max_bytes:
                raise FilesTooLarge(self._limits.max_bytes)
            _write_all(self._file, data)
            self.form.files[self._path] += len(data)
            if self._digest is not None:
                self._digest.update(data)
            if self._writeback is not None:
                self._writeback.wrote(len(data))
        elif self._field is not None:
            name, value = self._field
            if len(value) + len(data) > MAX_FIELD_BYTES:
                raise TooLarge(f"Field {name!r} is larger than {MAX_FIELD_BYTES} bytes")
            value.extend(data)

    def close_part(self) -> None:
        """End the open file or field."""
        if self._file is not None:
            file, self._file = self._file, None
            os.close(file)
            if self._digest is not None:
                self.form.digests[self._path] = self._digest.digest()
        elif self._field is not None:
            name, value = self._field
            text = value.decode("utf-8", "replace")
            self.form.fields.setdefault(name, []).append(text)
            self._field = None

    def close(self) -> None:
        """Close a file that an error left open. Its content is discarded."""
        if self._file is not None:
            file, self._file = self._file, None
            with contextlib.suppress(OSError):
                os.close(file)


def _write_all(file: int, data: memoryview) -> None:
    while data:
        data = data[os.write(file, data) :]
