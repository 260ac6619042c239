"""Joins ZIP files into one that is streamed, each in a folder of its own.

Content is copied as it is compressed. The directory of the new file grows in a temporary file, so
that the memory does not grow with the number of entries. All functions block.
"""

import struct
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import replace
from typing import IO

from job_orchestrator.common.protocol.paths import check_path
from job_orchestrator.server.files.zip_reader import (
    BUFFER_BYTES,
    Entry,
    EntryReader,
    read_directory,
    read_entries,
)

# APPNOTE.TXT of PKWARE, sections 4.3.7, 4.3.12 and 4.3.14 to 4.3.16.
_LOCAL = struct.Struct("<4s5H3L2H")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_END = struct.Struct("<4s4H2LH")
_UTF8 = 0x800
_ZIP64_VERSION = 45
_UNIX = 3 << 8
_MAX_32, _MAX_16 = 0xFFFFFFFF, 0xFFFF
_FILE_ATTRIBUTES = 0o100644 << 16
_FIRST_OF_1980 = 0x210000

MAX_DIRECTORY_IN_MEMORY = 1 << 20


class ZipJoiner:
    """Writer of the new file: yields its bytes in order."""

    def __init__(self) -> None:
        self._directory = tempfile.SpooledTemporaryFile(MAX_DIRECTORY_IN_MEMORY)  # noqa: SIM115
        self._entries = 0
        self._offset = 0

    def add(self, archive: IO[bytes], folder: str) -> Iterator[bytes]:
        """Yield the entries of a ZIP, below ``folder``.

        Raises ``NotAZip`` and ``UnsafePath`` before any part of the entry at fault.
        """
        directory = read_directory(archive)
        at = directory.offset
        for entry in read_entries(archive, directory):
            at = archive.tell()
            path = check_path(f"{folder}/{entry.path.rstrip('/')}")
            reader = EntryReader(archive, entry, raw=True)
            yield self._head(replace(entry, path=f"{path}/" if entry.is_folder else path))
            while block := reader.read(BUFFER_BYTES):
                self._offset += len(block)
                yield block
            archive.seek(at)

    def add_text(self, path: str, text: str) -> bytes:
        """Return the entry of a short text."""
        content = text.encode()
        size = len(content)
        entry = Entry(path, size, size, 0, 0, encrypted=False, crc=zlib.crc32(content))
        entry = replace(entry, modified=_FIRST_OF_1980, attributes=_FILE_ATTRIBUTES)
        head = self._head(entry)
        self._offset += size
        return head + content

    def end(self) -> Iterator[bytes]:
        """Yield the directory, which ends the file."""
        start, size = self._offset, self._directory.tell()
        self._directory.seek(0)
        while block := self._directory.read(BUFFER_BYTES):
            yield block
        count, at = self._entries, start + size
        if count >= _MAX_16 or start >= _MAX_32 or size >= _MAX_32:
            versions = (_UNIX | _ZIP64_VERSION, _ZIP64_VERSION)
            yield _END_64.pack(
                b"PK\6\6", _END_64.size - 12, *versions, 0, 0, count, count, size, start
            )
            yield _LOCATOR.pack(b"PK\6\7", 0, at, 1)
        few = min(count, _MAX_16)
        yield _END.pack(b"PK\5\6", 0, 0, few, few, min(size, _MAX_32), min(start, _MAX_32), 0)

    def close(self) -> None:
        """Remove the temporary file."""
        self._directory.close()

    def _head(self, entry: Entry) -> bytes:
        """Return the local header of an entry, and add the entry to the directory."""
        name = entry.path.encode("utf-8", "replace")
        time, date = entry.modified & _MAX_16, entry.modified >> 16
        large = max(entry.size, entry.packed, self._offset) >= _MAX_32
        sizes = (_MAX_32, _MAX_32) if large else (entry.packed, entry.size)
        version = _ZIP64_VERSION if large else 20
        common = (version, _UTF8, entry.method, time, date, entry.crc, *sizes, len(name))
        in_local = struct.pack("<2H2Q", 1, 16, entry.size, entry.packed) if large else b""
        offset = struct.pack("<2H3Q", 1, 24, entry.size, entry.packed, self._offset)
        in_directory = offset if large else b""
        self._directory.write(
            _ENTRY.pack(
                b"PK\1\2",
                _UNIX | _ZIP64_VERSION,
                *common,
                len(in_directory),
                0,
                0,
                0,
                entry.attributes,
                _MAX_32 if large else self._offset,
            )
        )
        self._directory.write(name + in_directory)
        self._entries += 1
        head = _LOCAL.pack(b"PK\3\4", *common, len(in_local)) + name + in_local
        self._offset += len(head)
        return head
