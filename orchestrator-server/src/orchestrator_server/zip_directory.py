"""The directory of a ZIP file, which is at its end, read as a stream.

``zipfile`` makes an object for each entry before it tells anything: results with a million files
would cost the server half a gigabyte whenever somebody looks at them. All functions block.
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from orchestrator_common.errors import DomainError

# APPNOTE.TXT of PKWARE, sections 4.3.12 to 4.3.16.
_END = struct.Struct("<4s4H2LH")
_LOCATOR = struct.Struct("<4sLQL")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_MAX_COMMENT = 0xFFFF
_IN_EXTRA = 0xFFFFFFFF
_ZIP64_FIELD = 1
_UTF8 = 0x800

BUFFER_BYTES = 1 << 16


class NoZip(DomainError):
    """This is no ZIP file, or not the whole of one."""


@dataclass(frozen=True)
class Directory:
    """Where the entries begin, how many bytes they have together, and how many there are."""

    offset: int
    size: int
    entries: int


@dataclass(frozen=True)
class Entry:
    """A file or folder in a ZIP; ``size`` in bytes, unpacked."""

    path: str
    size: int

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return self.path.endswith("/")


def read_directory(file: IO[bytes]) -> Directory:
    """Find the directory: a file that was cut off has none. Raises ``NoZip``."""
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
    raise NoZip("it does not end with a directory")


def _checked(file: IO[bytes], found: Directory, end: int) -> Directory:
    """The directory that the record at ``end`` tells of, which may be in another record."""
    if end >= _LOCATOR.size:
        signature, _, at, _ = _LOCATOR.unpack(_read(file, end - _LOCATOR.size, _LOCATOR.size))
        if signature == b"PK\6\7":
            if at + _END_64.size > end:
                raise NoZip("its end refers to what is not there")
            record = _END_64.unpack(_read(file, at, _END_64.size))
            if record[0] != b"PK\6\6":
                raise NoZip("its end refers to something else")
            found, end = Directory(record[-1], record[-2], record[-3]), at
    if found.offset + found.size > end or found.entries * _ENTRY.size > found.size:
        raise NoZip("its directory is cut off")
    if found.entries and _read(file, found.offset, 4) != b"PK\1\2":
        raise NoZip("its directory is not where it should be")
    return found


def read_entries(file: IO[bytes], directory: Directory) -> Iterator[Entry]:
    """The entries, one after the other. Raises ``NoZip`` at one that is broken."""
    file.seek(directory.offset)
    for _ in range(directory.entries):
        head = file.read(_ENTRY.size)
        if len(head) < _ENTRY.size or not head.startswith(b"PK\1\2"):
            raise NoZip("its directory is broken")
        fields = _ENTRY.unpack(head)
        flags, size = fields[3], fields[9]
        name_length, extra_length, comment_length = fields[10:13]
        name = file.read(name_length)
        extra = file.read(extra_length)
        file.seek(comment_length, os.SEEK_CUR)
        if size == _IN_EXTRA:
            size = _size_in(extra)
        yield Entry(name.decode("utf-8" if flags & _UTF8 else "cp437", "replace"), size)


def _size_in(extra: bytes) -> int:
    """The unpacked size, which comes first in the ZIP64 field of an entry."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == _ZIP64_FIELD and length >= 8 and at + 12 <= len(extra):
            (size,) = struct.unpack_from("<Q", extra, at + 4)
            return int(size)
        at += 4 + length
    return _IN_EXTRA


def _read(file: IO[bytes], offset: int, length: int) -> bytes:
    file.seek(offset)
    content = file.read(length)
    if len(content) != length:
        raise NoZip("it is cut off")
    return content
