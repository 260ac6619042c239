"""Writes ZIP archives (APPNOTE.TXT 6.3.3), without ``zipfile.ZipFile``.

``ZipFile`` compresses with zlib only, goes back to complete the header of every small file, and
keeps an object of about a kilobyte for each entry. Here a small file is one write, a large one is
compressed in several threads, and an entry takes the bytes of its record in the central directory.

Bytes are only ever appended, so that the digest of the archive is computed while it is written.
"""

import contextlib
import hashlib
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, NamedTuple

from isal import isal_zlib

from job_orchestrator.client.results.deflate import ParallelDeflater, deflate, is_incompressible

STORED, DEFLATED = 0, 8

ZIP64_FROM_BYTES = 1 << 31
"""Sizes and offsets from here on are written as ZIP64, as by ``zipfile``.

The plain fields hold twice as much, but some readers interpret them as signed numbers.
"""

MAX_PLAIN_ENTRIES = 0xFFFF
"""Entries that an archive without ZIP64 can count."""

_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
_DIRECTORY_RECORD = struct.Struct("<4s6H3L5H2L")
_DESCRIPTOR = struct.Struct("<4s3L")
_DESCRIPTOR64 = struct.Struct("<4sL2Q")
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_END64_LOCATOR = struct.Struct("<4sLQL")
_MAX_END_BYTES = _END64.size + _END64_LOCATOR.size + _END.size

_IN_ZIP64_16, _IN_ZIP64_32 = 0xFFFF, 0xFFFFFFFF
"""Values of a field whose real value is in a ZIP64 record."""

_VERSION, _ZIP64_VERSION = 20, 45
_UNIX = 3 << 8
_UTF8_NAME = 0x800
_SIZES_FOLLOW = 0x8
"""Flag of a member whose checksum and sizes follow its data, in a data descriptor."""

_DOS_FOLDER = 0x10
_EARLIEST = (1980, 1, 1, 0, 0, 0)
_LATEST = (2107, 12, 31, 23, 59, 58)


class Member(NamedTuple):
    """A file or folder in the archive. The name of a folder ends in ``/``.

    ``mode`` is ``st_mode``; ``modified_at`` is in seconds since the epoch.
    """

    name: str
    mode: int
    modified_at: float


@dataclass(slots=True)
class _Record:
    """The fields of a member that both of its headers hold."""

    name: bytes
    flags: int
    mode: int
    dos_time: int
    dos_date: int
    offset: int
    zip64: bool
    """True if the local header and the data descriptor have ZIP64 fields for the sizes."""
    method: int = DEFLATED
    crc: int = 0
    size: int = 0
    compressed_size: int = 0

    def local_header(self) -> bytes:
        version, sizes, extra = _VERSION, (self.compressed_size, self.size), b""
        if self.zip64:
            version, sizes = _ZIP64_VERSION, (_IN_ZIP64_32, _IN_ZIP64_32)
            extra = _zip64_extra(self.size, self.compressed_size)
        header = _LOCAL_HEADER.pack(
            b"PK\x03\x04",
            version,
            self.flags,
            self.method,
            self.dos_time,
            self.dos_date,
            self.crc,
            *sizes,
            len(self.name),
            len(extra),
        )
        return header + self.name + extra

    def descriptor(self) -> bytes:
        kind = _DESCRIPTOR64 if self.zip64 else _DESCRIPTOR
        return kind.pack(b"PK\x07\x08", self.crc, self.compressed_size, self.size)

    def directory_record(self, zip64_from: int) -> bytes:
        sizes, offset = (self.compressed_size, self.size), self.offset
        in_zip64: list[int] = []
        if max(sizes) >= zip64_from:
            in_zip64 += (self.size, self.compressed_size)
            sizes = (_IN_ZIP64_32, _IN_ZIP64_32)
        if offset >= zip64_from:
            in_zip64.append(offset)
            offset = _IN_ZIP64_32
        extra = _zip64_extra(*in_zip64) if in_zip64 else b""
        version = _ZIP64_VERSION if self.zip64 or extra else _VERSION
        record = _DIRECTORY_RECORD.pack(
            b"PK\x01\x02",
            version | _UNIX,
            version,
            self.flags,
            self.method,
            self.dos_time,
            self.dos_date,
            self.crc,
            *sizes,
            len(self.name),
            len(extra),
            0,  # no comment
            0,  # one disk
            0,  # internal attributes
            (self.mode & 0xFFFF) << 16 | (_DOS_FOLDER if self.name.endswith(b"/") else 0),
            offset,
        )
        return record + self.name + extra

    def measured(self, blocks: Iterator[bytes]) -> Iterator[bytes]:
        """Pass blocks on, and keep the checksum and the size of those that have passed."""
        for block in blocks:
            self.crc = isal_zlib.crc32(block, self.crc)
            self.size += len(block)
            yield block


class ZipWriter:
    """Writes one archive to ``file``, from its beginning.

    Without ``close`` the archive has no directory. ``zip64_from`` and ``max_plain_entries`` are
    the limits from which ZIP64 is used; tests lower them.
    """

    def __init__(
        self,
        file: IO[bytes],
        deflater: ParallelDeflater,
        *,
        zip64_from: int = ZIP64_FROM_BYTES,
        max_plain_entries: int = MAX_PLAIN_ENTRIES,
    ) -> None:
        self._file = file
        self._deflater = deflater
        self._zip64_from = zip64_from
        self._max_plain_entries = max_plain_entries
        self._offset = 0
        self._sha256 = hashlib.sha256()
        self._directory = bytearray()
        self._entries = 0

    @property
    def size(self) -> int:
        """Bytes that the archive would have if it were closed now, or a few less."""
        return self._offset + len(self._directory) + _MAX_END_BYTES

    @property
    def sha256(self) -> bytes:
        """SHA-256 digest of what is written, after ``close`` of the whole archive."""
        return self._sha256.digest()

    def write(self, member: Member, content: bytes) -> None:
        """Append a member whose content is in memory, with a single write.

        The content is stored if it does not get smaller by compression. Raises
        ``UnicodeEncodeError`` for a name that is not valid Unicode.
        """
        record = self._new_record(member, max_size=len(content))
        data = content if is_incompressible(content) else deflate(content)
        if len(data) >= len(content):
            record.method, data = STORED, content
        record.crc = isal_zlib.crc32(content)
        record.size, record.compressed_size = len(content), len(data)
        self._append(record.local_header() + data)
        self._enter(record)

    def write_blocks(
        self,
        member: Member,
        blocks: Iterator[bytes],
        max_size: int,
        after_part: Callable[[], None] = lambda: None,
    ) -> None:
        """Append a member of at most ``max_size`` bytes that arrives in blocks.

        Checksum and sizes are known only at the end, and are in a data descriptor after the data.
        ``after_part`` is called after each compressed part and may raise to stop.
        """
        record = self._new_record(member, max_size)
        record.flags |= _SIZES_FOLLOW
        self._append(record.local_header())
        with self._deflater.deflate_blocks(record.measured(blocks)) as parts:
            for part in parts:
                self._append(part)
                record.compressed_size += len(part)
                after_part()
        self._append(record.descriptor())
        self._enter(record)

    def close(self) -> None:
        """Append the central directory; the file stays open."""
        start, size = self._offset, len(self._directory)
        self._append(self._directory)
        too_many = self._entries > self._max_plain_entries
        if too_many or max(start, size) >= self._zip64_from:
            counts = (self._entries, self._entries)
            end64 = _END64.pack(
                b"PK\x06\x06", 44, _ZIP64_VERSION, _ZIP64_VERSION, 0, 0, *counts, size, start
            )
            self._append(end64 + _END64_LOCATOR.pack(b"PK\x06\x07", 0, start + size, 1))
        entries = _IN_ZIP64_16 if too_many else self._entries
        self._append(
            _END.pack(
                b"PK\x05\x06",
                0,
                0,
                entries,
                entries,
                _IN_ZIP64_32 if size >= self._zip64_from else size,
                _IN_ZIP64_32 if start >= self._zip64_from else start,
                0,
            )
        )

    def _new_record(self, member: Member, max_size: int) -> _Record:
        name = member.name.encode()
        flags = 0 if name.isascii() else _UTF8_NAME
        year, month, day, hour, minute, second = _zip_time(member.modified_at)
        return _Record(
            name,
            flags,
            member.mode,
            dos_time=hour << 11 | minute << 5 | second // 2,
            dos_date=(year - 1980) << 9 | month << 5 | day,
            offset=self._offset,
            zip64=max_size >= self._zip64_from,
        )

    def _append(self, data: bytes | bytearray) -> None:
        self._file.write(data)
        self._sha256.update(data)
        self._offset += len(data)

    def _enter(self, record: _Record) -> None:
        self._directory += record.directory_record(self._zip64_from)
        self._entries += 1


def _zip64_extra(*values: int) -> bytes:
    return struct.pack(f"<HH{len(values)}Q", 1, 8 * len(values), *values)


def _zip_time(seconds: float) -> tuple[int, int, int, int, int, int]:
    """Convert to local time as ZIP can hold it: from 1980 to 2107."""
    moment = _EARLIEST
    with contextlib.suppress(ValueError, OverflowError, OSError):
        moment = time.localtime(seconds)[:6]
    return min(max(moment, _EARLIEST), _LATEST)
