"""Reader of ZIP files in constant memory: the directory at the end, and the content of one entry.

``zipfile`` creates an object for each entry when it opens a file: a ZIP with a million entries
would cost the server half a gigabyte for each request that lists it. All functions block.
"""

import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from job_orchestrator.common.errors import DomainError

# APPNOTE.TXT of PKWARE, sections 4.3.12 to 4.3.16.
_END = struct.Struct("<4s4H2LH")
_LOCATOR = struct.Struct("<4sLQL")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_HEAD = struct.Struct("<4s5H3L2H")
_MAX_COMMENT = 0xFFFF
_IN_EXTRA = 0xFFFFFFFF
_ZIP64_FIELD = 1
_UTF8 = 0x800
_ENCRYPTED = 1
_STORED, _DEFLATED = 0, 8

BUFFER_BYTES = 1 << 16


class NotAZip(DomainError):
    """The file is not a ZIP file, or it is incomplete or corrupt."""


@dataclass(frozen=True)
class Directory:
    """Location of the directory: its offset and size in bytes, and the number of its entries."""

    offset: int
    size: int
    entries: int


@dataclass(frozen=True)
class Entry:
    """A file or folder in a ZIP.

    ``size`` is its size in bytes and ``packed`` its compressed size, ``offset`` is that
    of the local header, ``method`` the number of the compression method. ``modified`` holds time
    and date as in the directory, ``attributes`` the external ones.
    """

    path: str
    size: int
    packed: int
    offset: int
    method: int
    encrypted: bool
    crc: int = 0
    modified: int = 0
    attributes: int = 0

    @property
    def is_folder(self) -> bool:
        """True for a folder, false for a file."""
        return self.path.endswith("/")


def read_directory(file: IO[bytes]) -> Directory:
    """Find the directory at the end of a ZIP. Raises ``NotAZip``, also if the file was cut off."""
    length = file.seek(0, os.SEEK_END)
    start = max(0, length - _END.size - _MAX_COMMENT)
    tail = _read(file, start, length - start)
    at = tail.rfind(b"PK\5\6")
    while at >= 0:
        if at + _END.size <= len(tail):
            _, _, _, _, entries, size, offset, comment = _END.unpack_from(tail, at)
            if at + _END.size + comment == len(tail):
                return _checked(file, Directory(offset, size, entries), start + at)
        at = tail.rfind(b"PK\5\6", 0, at)
    raise NotAZip("it does not end with a directory")


def _checked(file: IO[bytes], found: Directory, end: int) -> Directory:
    """Return the directory that the end record at ``end`` describes, or its ZIP64 end record."""
    if end >= _LOCATOR.size:
        signature, _, at, _ = _LOCATOR.unpack(_read(file, end - _LOCATOR.size, _LOCATOR.size))
        if signature == b"PK\6\7":
            if at + _END_64.size > end:
                raise NotAZip("its end record refers to a position outside of the file")
            record = _END_64.unpack(_read(file, at, _END_64.size))
            if record[0] != b"PK\6\6":
                raise NotAZip("its end record refers to something else")
            found, end = Directory(record[-1], record[-2], record[-3]), at
    if found.offset + found.size > end or found.entries * _ENTRY.size > found.size:
        raise NotAZip("its directory is cut off")
    if found.entries and _read(file, found.offset, 4) != b"PK\1\2":
        raise NotAZip("its directory is not at the position that its end record names")
    return found


def read_entries(file: IO[bytes], directory: Directory) -> Iterator[Entry]:
    """Yield the entries. Raises ``NotAZip`` at the first corrupt one."""
    file.seek(directory.offset)
    for _ in range(directory.entries):
        head = file.read(_ENTRY.size)
        if len(head) < _ENTRY.size or not head.startswith(b"PK\1\2"):
            raise NotAZip("its directory is corrupt")
        fields = _ENTRY.unpack(head)
        flags, method = fields[3:5]
        name_length, extra_length, comment_length = fields[10:13]
        name = file.read(name_length)
        extra = file.read(extra_length)
        file.seek(comment_length, os.SEEK_CUR)
        size, packed, offset = _large((fields[9], fields[8], fields[16]), extra)
        path = name.decode("utf-8" if flags & _UTF8 else "cp437", "replace")
        yield Entry(
            path,
            size,
            packed,
            offset,
            method,
            bool(flags & _ENCRYPTED),
            crc=fields[7],
            modified=fields[5] | fields[6] << 16,
            attributes=fields[15],
        )


def find_entry(file: IO[bytes], path: str) -> Entry | None:
    """Return the entry with this path, None if there is none. Raises ``NotAZip``."""
    entries = read_entries(file, read_directory(file))
    return next((entry for entry in entries if entry.path == path), None)


def _large(numbers: tuple[int, int, int], extra: bytes) -> Iterator[int]:
    """Yield the numbers; those beyond 32 bits are read from the ZIP64 field of ``extra``."""
    found = _zip64_field(extra) if _IN_EXTRA in numbers else b""
    at = 0
    for number in numbers:
        if number == _IN_EXTRA and at + 8 <= len(found):
            yield int.from_bytes(found[at : at + 8], "little")
            at += 8
        else:
            yield number


def _zip64_field(extra: bytes) -> bytes:
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == _ZIP64_FIELD:
            return extra[at + 4 : at + 4 + length]
        at += 4 + length
    return b""


class EntryReader:
    """Reader of the content of one entry. Raises ``NotAZip`` if it can't be decompressed.

    The reader owns ``file``: closing the reader closes the ZIP.
    """

    def __init__(self, file: IO[bytes], entry: Entry, *, raw: bool = False) -> None:
        """Begin to read an entry; ``raw``: as it is compressed."""
        if entry.encrypted or entry.method not in (_STORED, _DEFLATED):
            raise NotAZip(f"{entry.path} is encrypted or compressed with an unsupported method")
        if entry.offset + entry.packed > file.seek(0, os.SEEK_END):
            raise NotAZip(f"{entry.path} is cut off")
        head = _HEAD.unpack(_read(file, entry.offset, _HEAD.size))
        if head[0] != b"PK\3\4":
            raise NotAZip(f"{entry.path} is not at the position that the directory names")
        file.seek(head[-2] + head[-1], os.SEEK_CUR)
        self._file = file
        self._left = entry.packed
        self._inflating = zlib.decompressobj(-15) if entry.method == _DEFLATED and not raw else None

    def skip(self, size: int) -> None:
        """Skip ``size`` bytes, or up to the end."""
        while size and (block := self.read(min(size, BUFFER_BYTES))):
            size -= len(block)

    def read(self, size: int) -> bytes:
        """Return the next bytes, at most ``size``; b"" at the end."""
        if self._inflating is None:
            return self._packed(size)
        while not self._inflating.eof:
            packed = self._inflating.unconsumed_tail or self._packed(BUFFER_BYTES)
            try:
                block = self._inflating.decompress(packed, size)
            except zlib.error as error:
                raise NotAZip(f"its compressed data is corrupt: {error}") from error
            if block:
                return block
            if not (packed or self._inflating.eof):
                raise NotAZip("it is cut off")
        return b""

    def _packed(self, size: int) -> bytes:
        block = self._file.read(min(size, self._left))
        self._left -= len(block)
        return block

    def close(self) -> None:
        """Close the ZIP file."""
        self._file.close()


def _read(file: IO[bytes], offset: int, length: int) -> bytes:
    file.seek(offset)
    content = file.read(length)
    if len(content) != length:
        raise NotAZip("it is cut off")
    return content
