"""Packs what a payload left behind into a ZIP.

Every regular file below the work folder goes in, dot files too, with its relative name; beside them
``.orchestrator/`` with the script's output and ``result.json``. What can't go in is skipped and
listed there; a script can't make packing fail or hang.
"""

import asyncio
import contextlib
import os
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO

from isal import isal_zlib

from job_orchestrator.client.errors import (
    ArchiveFailed,
    OnlyOutputKept,
    PackingGivenUp,
    ResultTooLarge,
)
from job_orchestrator.client.executors.base import Outcome
from job_orchestrator.client.results.deflate import BLOCK_BYTES, Deflaters, deflated, is_dense
from job_orchestrator.client.results.file_blocks import blocks_of
from job_orchestrator.client.results.manifest import LeftOut, result_record
from job_orchestrator.client.results.queue import LEAST_LIMIT_S, Turn, Turns
from job_orchestrator.client.results.walk import NotRegular, open_regular, walk
from job_orchestrator.client.workspace.layout import Workspace
from job_orchestrator.client.workspace.ownership import rights_of_owner, take_back
from job_orchestrator.common.config.units import size_text
from job_orchestrator.common.protocol.paths import RESERVED
from job_orchestrator.common.runtime.fault_injection import Point, reach
from job_orchestrator.common.storage.durable import full_disk_as_domain_error

MAX_SMALL_TURNS, LARGE_TURNS = 12, 4
"""Of results at once, and half as many of partial ones: other work needs threads too.

More large ones than there may be CPUs: they take about as long together as one after the other, and
of two the shorter one need not wait for the end of the longer one."""

MAX_KEPT_OUTPUT_BYTES = 1 << 30
"""Of either stream of a script, where only they are kept of results of any size."""

DIRECTORY_ENTRY_BYTES = 76
"""What an entry takes at the end of a ZIP, beside its name."""

# Deflate can make a file larger than it was, by far less than this leaves room for.
_ZIP64_FROM = 1 << 31
_DOS_FOLDER = 0x10
_EARLIEST = (1980, 1, 1, 0, 0, 0)
_LATEST = (2107, 12, 31, 23, 59, 58)


class Packer:
    """Packs in threads, as many at a time as there are CPUs for it, and some large results beside.

    What somebody asks for has turns of its own: however often that is, it delays no payload's end.
    Of results that are larger than ``max_bytes`` (0: of any size) only the script's output is kept.
    """

    def __init__(self, max_bytes: int = 0) -> None:
        self._max_bytes = max_bytes
        small = min(os.cpu_count() or 1, MAX_SMALL_TURNS)
        self._turns = Turns(small, LARGE_TURNS)
        self._partial_turns = Turns(max(1, small // 2), max(1, LARGE_TURNS // 2))
        self._stopping = threading.Event()
        self._deflaters = Deflaters()

    async def pack(
        self, workspace: Workspace, outcome: Outcome, given_up: asyncio.Event | None = None
    ) -> None:
        """Write the results of an ended payload, whole or not at all.

        Once ``given_up`` is set no more than the script's output is written, and no turn waited
        for. So it is when packing takes longer than the script itself did, which has kept a slot
        from others as long. Raises ``StorageFull``, ``ArchiveFailed``, and its kind
        ``OnlyOutputKept``.
        """
        given_up = given_up or asyncio.Event()

        def check_wanted() -> None:
            self._check_stopping()
            if given_up.is_set():  # from another thread it may be asked, but not awaited
                raise PackingGivenUp("only the output of run.sh was kept")

        limit_s = max(LEAST_LIMIT_S, outcome.ended_at - outcome.started_at)
        work = partial(self._pack, workspace, outcome)
        await self._turns.pack(work, check_wanted, given_up, limit_s)

    async def pack_partial(self, workspace: Workspace) -> IO[bytes]:
        """Pack what there is of a payload now into a file without a name, and return that.

        Nothing is left behind, come what may. Raises ``StorageFull``, ``ArchiveFailed``.
        """
        work = partial(self._pack_partial, workspace)
        return await self._partial_turns.pack(
            work, self._check_stopping, asyncio.Event(), LEAST_LIMIT_S
        )

    def stop(self) -> None:
        """Give up what is being packed: the client stops, and nobody will ask for it."""
        self._stopping.set()

    def _check_stopping(self) -> None:
        if self._stopping.is_set():
            raise ArchiveFailed("The client stops")

    def _pack(self, workspace: Workspace, outcome: Outcome, turn: Turn) -> None:
        temporary = workspace.root / ".results.zip.tmp"
        try:
            with _as_domain_errors():
                # A file system without room says so when it is written or closed. Nothing of this
                # need be durable: after a power cut nobody knows the payload any more.
                with temporary.open("wb") as file:
                    incomplete = self._write(file, workspace, outcome, turn)
                reach(Point.CLIENT_PACKING)
                temporary.replace(workspace.results)
                take_back(workspace.root)
            if incomplete is not None:
                raise incomplete
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise

    def _pack_partial(self, workspace: Workspace, turn: Turn) -> IO[bytes]:
        with _as_domain_errors():
            file = tempfile.TemporaryFile(dir=workspace.root)  # noqa: SIM115 (the caller closes it)
            try:
                self._write(file, workspace, None, turn)
                file.seek(0)
            except BaseException:
                file.close()
                raise
        return file

    def _write(
        self, file: IO[bytes], workspace: Workspace, outcome: Outcome | None, turn: Turn
    ) -> OnlyOutputKept | None:
        """Write all, or if that can't be only the script's output, and return why."""
        packing = _Packing(file, self._deflaters, turn, self._max_bytes)
        try:
            packing.write(workspace, outcome)
        except OnlyOutputKept as error:
            file.seek(0)
            file.truncate()
            turn = Turn(self._check_stopping)
            packing = _Packing(file, self._deflaters, turn, self._max_bytes)
            packing.write(workspace, outcome, instead=error)
            return error
        return None


@contextlib.contextmanager
def _as_domain_errors() -> Iterator[None]:
    try:
        with full_disk_as_domain_error():
            yield
    except (OSError, zipfile.LargeZipFile) as error:
        raise ArchiveFailed(f"The results could not be packed: {error}") from error


class _Packing:
    """An archive that is being written, and what could not go in.

    ``turn`` hears of each file and each block before it, and raises to stop it.
    """

    def __init__(
        self,
        file: IO[bytes],
        deflaters: Deflaters,
        turn: Turn,
        max_bytes: int,
    ) -> None:
        self._file = file
        self._archive = zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, allowZip64=True)
        self._deflaters = deflaters
        self._turn = turn
        self._max_bytes = max_bytes
        self._directory_bytes = 0
        self._unpacked_bytes = 0
        self._disk_bytes = _size_of_disk(file)
        self._left_out = LeftOut()
        self._skip = self._left_out.note

    def write(
        self, workspace: Workspace, outcome: Outcome | None, instead: OnlyOutputKept | None = None
    ) -> None:
        """Write an archive; ``instead`` of all, only what comes of the system.

        Raises ``OnlyOutputKept``, and what ``turn`` raises.
        """
        with self._archive:
            if instead is None:
                work = _real(workspace.work)
                with rights_of_owner(work):
                    for entry in walk(work, self._skip, self._turn.find):
                        self._add(entry.path, entry.name, inside=work)
            else:
                self._skip(".", str(instead))
            for path in (workspace.stdout, workspace.stderr):
                if path.exists():
                    # Beside each other they have room in what results may be.
                    kept = self._max_bytes // 2 or MAX_KEPT_OUTPUT_BYTES
                    limit = kept if instead is not None else None
                    name = f"{RESERVED}/{path.name}"
                    self._add(str(path), name, inside=_real(workspace.root), limit=limit)
            self._archive.writestr(
                f"{RESERVED}/result.json", result_record(outcome, self._left_out)
            )

    def _add(self, path: str, name: str, *, inside: Path, limit: int | None = None) -> None:
        """Add an empty folder, a file, or what a link to a file ``inside`` leads to.

        Of a file at most ``limit`` bytes; None: all of it, within what results may be.
        """
        self._turn.check()
        try:
            name.encode()
        except UnicodeEncodeError:
            self._skip(name, "its name is not UTF-8")
            return
        try:
            if name.endswith("/"):
                status = os.stat(path)  # noqa: PTH116 (a string: there may be thousands)
                entry = zipfile.ZipInfo(name, _zip_time(status.st_mtime))
                entry.external_attr = (status.st_mode & 0xFFFF) << 16 | _DOS_FOLDER
                self._archive.writestr(entry, b"")
                self._directory_bytes += DIRECTORY_ENTRY_BYTES + len(name)
                self._check_size()
                return
            descriptor = open_regular(path, inside)
        except NotRegular as reason:
            self._skip(name, str(reason))
            return
        except OSError as error:
            self._skip(name, error.strerror or "unreadable")
            return
        # A descriptor, which its stream closes; unbuffered, because it is read in large blocks.
        with open(descriptor, "rb", buffering=0) as source:  # noqa: PTH123
            self._copy(source, name, limit)
        self._directory_bytes += DIRECTORY_ENTRY_BYTES + len(name)

    def _check_size(self) -> None:
        if self._max_bytes and self._file.tell() + self._directory_bytes > self._max_bytes:
            raise ResultTooLarge(
                f"The results are larger than {size_text(self._max_bytes)} (MAX_RESULT_SIZE);"
                " only the output of run.sh was kept"
            )

    def _check_unpacked(self, size: int) -> None:
        """Before so many bytes are packed: links take no room, but days to pack."""
        self._turn.unpack(size)
        self._unpacked_bytes += size
        if self._disk_bytes and self._unpacked_bytes > self._disk_bytes:
            raise ResultTooLarge(
                "The results, with what their links and sparse files stand for, are larger than the"
                " client's disk; only the output of run.sh was kept"
            )

    def _copy(self, source: IO[bytes], name: str, limit: int | None) -> None:
        status = os.fstat(source.fileno())
        entry = zipfile.ZipInfo(name, _zip_time(status.st_mtime))
        entry.external_attr = (status.st_mode & 0xFFFF) << 16
        entry.compress_type = zipfile.ZIP_DEFLATED
        # The size at the beginning: a file that is being written may grow faster than it is read.
        left = status.st_size
        if limit is not None and left > limit:
            self._skip(name, f"cut off after {limit} bytes")
            left = limit
        if limit is None:
            self._check_unpacked(left)
        blocks = self._blocks(source, name, left)
        if left <= BLOCK_BYTES:
            self._add_whole(entry, b"".join(blocks))
        else:
            self._add_in_blocks(entry, blocks, zip64=left >= _ZIP64_FROM, checked=limit is None)
        if limit is None:
            self._check_size()

    def _blocks(self, source: IO[bytes], name: str, size: int) -> Iterator[bytes]:
        """At most ``size`` bytes of a file; less if it can't be read to its end."""
        try:
            for block in blocks_of(source.fileno(), size):
                self._turn.check()
                yield block
        except OSError as error:
            self._skip(name, f"cut off: {error.strerror}")

    def _add_whole(self, entry: zipfile.ZipInfo, content: bytes) -> None:
        """Add a small file: at once, where ``ZipFile.open`` goes back to complete its header."""
        data = content if is_dense(content) else deflated(content)
        if len(data) >= len(content):
            entry.compress_type, data = zipfile.ZIP_STORED, content
        entry.CRC = isal_zlib.crc32(content)
        entry.file_size, entry.compress_size = len(content), len(data)
        entry.header_offset = self._archive.start_dir
        written = self._file.write(entry.FileHeader(zip64=False) + data)
        self._enter(entry, entry.header_offset + written)

    def _add_in_blocks(
        self, entry: zipfile.ZipInfo, blocks: Iterator[bytes], *, zip64: bool, checked: bool
    ) -> None:
        """Add a large file; ``checked``: only as far as results may be."""
        entry.CRC = entry.file_size = entry.compress_size = 0
        entry.header_offset = self._archive.start_dir
        self._file.write(entry.FileHeader(zip64=zip64))

        def counted() -> Iterator[bytes]:
            for block in blocks:
                entry.CRC = isal_zlib.crc32(block, entry.CRC)
                entry.file_size += len(block)
                yield block

        with self._deflaters.stream(counted()) as parts:
            for part in parts:
                entry.compress_size += self._file.write(part)
                if checked:
                    self._check_size()
        end = self._file.tell()
        self._file.seek(entry.header_offset)
        self._file.write(entry.FileHeader(zip64=zip64))
        self._file.seek(end)
        self._enter(entry, end)

    def _enter(self, entry: zipfile.ZipInfo, end: int) -> None:
        """Name what was written, up to ``end``, in the directory, as ``ZipFile`` itself does it.

        It lets nobody choose a compressor or write a header that is complete from the beginning.
        These attributes are the same since Python 2.7, and a test reads the result on each version.
        """
        archive = self._archive
        archive.start_dir = end
        archive.filelist.append(entry)
        archive.NameToInfo[entry.filename] = entry


def _size_of_disk(file: IO[bytes]) -> int:
    """Bytes that the file system of ``file`` holds; 0 if it doesn't tell."""
    status = os.fstatvfs(file.fileno())
    return status.f_blocks * status.f_frsize


def _real(path: Path) -> Path:
    # Path.resolve raises something else for a loop in each version of Python.
    return Path(os.path.realpath(path))


def _zip_time(seconds: float) -> tuple[int, int, int, int, int, int]:
    """Local time as ZIP can hold it: from 1980 to 2107."""
    moment = _EARLIEST
    with contextlib.suppress(ValueError, OverflowError, OSError):
        moment = time.localtime(seconds)[:6]
    return min(max(moment, _EARLIEST), _LATEST)
