"""Packs what a payload left behind into a ZIP.

Every regular file below the work folder goes in, dot files too, with its relative name; beside them
``.orchestrator/`` with the script's output and ``result.json``. What can't go in is skipped and
listed there; a script can't make packing fail or hang.
"""

import asyncio
import contextlib
import errno
import os
import stat
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import msgspec
from isal import isal_zlib

from orchestrator_client.errors import ArchiveFailed
from orchestrator_client.executors.base import Outcome
from orchestrator_client.file_rights import rights_of_owner, take_back
from orchestrator_client.workspace import Workspace
from orchestrator_common.durable import full_disk_as_domain_error
from orchestrator_common.faults import Point, reach
from orchestrator_common.paths import RESERVED
from orchestrator_common.threads import in_thread

DEFLATE_LEVEL = 2
BLOCK_BYTES = 1 << 20
MAX_LISTED = 1000
# Deflate can make a file larger than it was, by far less than this leaves room for.
_ZIP64_FROM = 1 << 31
_DOS_FOLDER = 0x10
_EARLIEST = (1980, 1, 1, 0, 0, 0)
_LATEST = (2107, 12, 31, 23, 59, 58)


class Skipped(msgspec.Struct, frozen=True):
    """A file that is not in the ZIP, or not whole, and why."""

    path: str
    reason: str


class ResultRecord(msgspec.Struct, frozen=True):
    """``.orchestrator/result.json``. Times are seconds since the epoch; None: not ended yet.

    ``skipped`` holds the first ``MAX_LISTED`` of ``skipped_count`` files.
    """

    exit_code: int | None
    signal: int | None
    started_at: float | None
    ended_at: float | None
    skipped_count: int
    skipped: list[Skipped]


class Packer:
    """Packs in threads, as many at a time as there are CPUs for it."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(os.cpu_count() or 1)
        self._stopping = threading.Event()

    async def pack(self, workspace: Workspace, outcome: Outcome) -> None:
        """Write the results of an ended payload, whole or not at all.

        Raises ``StorageFull``, ``ArchiveFailed``.
        """
        async with self._turns:
            await in_thread(self._pack, workspace, outcome)

    async def pack_partial(self, workspace: Workspace) -> IO[bytes]:
        """Pack what there is of a payload now into a file without a name, and return that.

        Nothing is left behind, come what may. Raises ``StorageFull``, ``ArchiveFailed``.
        """
        async with self._turns:
            return await in_thread(self._pack_partial, workspace)

    def stop(self) -> None:
        """Give up what is being packed: the client stops, and nobody will ask for it."""
        self._stopping.set()

    def _pack(self, workspace: Workspace, outcome: Outcome) -> None:
        temporary = workspace.root / ".results.zip.tmp"
        try:
            with _as_domain_errors():
                # A file system without room says so when it is written or closed. Nothing of this
                # need be durable: after a power cut nobody knows the payload any more.
                with temporary.open("wb") as file:
                    _write(file, workspace, outcome, self._stopping)
                reach(Point.CLIENT_PACKING)
                temporary.replace(workspace.results)
                take_back(workspace.root)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise

    def _pack_partial(self, workspace: Workspace) -> IO[bytes]:
        with _as_domain_errors():
            file = tempfile.TemporaryFile(dir=workspace.root)  # noqa: SIM115 (the caller closes it)
            try:
                _write(file, workspace, None, self._stopping)
                file.seek(0)
            except BaseException:
                file.close()
                raise
        return file


@contextlib.contextmanager
def _as_domain_errors() -> Iterator[None]:
    try:
        with full_disk_as_domain_error():
            yield
    except (OSError, zipfile.LargeZipFile) as error:
        raise ArchiveFailed(f"The results could not be packed: {error}") from error


def _write(
    file: IO[bytes], workspace: Workspace, outcome: Outcome | None, stopping: threading.Event
) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, allowZip64=True) as archive:
        packing = _Packing(archive, stopping)
        with rights_of_owner(workspace.work):
            for entry in _walk(workspace.work, packing):
                packing.add(entry.path, entry.name, inside=workspace.work)
        for path in (workspace.stdout, workspace.stderr):
            if path.exists():
                packing.add(path, f"{RESERVED}/{path.name}", inside=workspace.root)
        record = ResultRecord(
            exit_code=outcome.exit_code if outcome else None,
            signal=outcome.signal if outcome else None,
            started_at=outcome.started_at if outcome else None,
            ended_at=outcome.ended_at if outcome else None,
            skipped_count=packing.skipped_count,
            skipped=packing.skipped,
        )
        content = msgspec.json.format(msgspec.json.encode(record), indent=2)
        archive.writestr(f"{RESERVED}/result.json", content)


class _Entry(NamedTuple):
    """Something below the work folder, and its relative name; that of an empty folder ends in /."""

    path: Path
    name: str


def _walk(top: Path, packing: "_Packing") -> Iterator[_Entry]:
    """Everything below ``top`` that isn't a folder, and empty folders.

    Not by recursion: a script can nest folders more deeply than Python calls.
    """
    pending = [_Entry(top, "")]
    while pending:
        folder, prefix = pending.pop()
        try:
            with os.scandir(folder) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError as error:
            packing.skip(prefix or ".", error.strerror or "unreadable")
            continue
        if prefix and not entries:
            yield _Entry(folder, prefix)
        for entry in entries:
            found = _Entry(Path(entry.path), f"{prefix}{entry.name}")
            if found.name == RESERVED:  # it would mix with ours
                packing.skip(RESERVED, "the name is reserved")
            elif entry.is_dir(follow_symlinks=False):
                pending.append(_Entry(found.path, f"{found.name}/"))
            else:
                yield found


class _Packing:
    """An archive that is being written, and what could not go in."""

    def __init__(self, archive: zipfile.ZipFile, stopping: threading.Event) -> None:
        self._archive = archive
        self._stopping = stopping
        self.skipped: list[Skipped] = []
        self.skipped_count = 0

    def skip(self, name: str, reason: str) -> None:
        """Note that something is left out."""
        self.skipped_count += 1
        if len(self.skipped) < MAX_LISTED:
            shown = name.encode("utf-8", "backslashreplace").decode()
            self.skipped.append(Skipped(shown, reason))

    def add(self, path: Path, name: str, *, inside: Path) -> None:
        """Add an empty folder, a file, or what a link to a file ``inside`` leads to."""
        try:
            name.encode()
        except UnicodeEncodeError:
            self.skip(name, "its name is not UTF-8")
            return
        try:
            if name.endswith("/"):
                status = path.stat()
                entry = zipfile.ZipInfo(name, _zip_time(status.st_mtime))
                entry.external_attr = (status.st_mode & 0xFFFF) << 16 | _DOS_FOLDER
                self._archive.writestr(entry, b"")
                return
            descriptor = _open_regular(_target(path, inside))
        except _NotRegular as reason:
            self.skip(name, str(reason))
            return
        except OSError as error:
            self.skip(name, error.strerror or "unreadable")
            return
        # A descriptor, which its stream closes; unbuffered, because it is read in large blocks.
        with open(descriptor, "rb", buffering=0) as source:  # noqa: PTH123
            self._copy(source, name)

    def _copy(self, source: IO[bytes], name: str) -> None:
        status = os.fstat(source.fileno())
        entry = zipfile.ZipInfo(name, _zip_time(status.st_mtime))
        entry.external_attr = (status.st_mode & 0xFFFF) << 16
        entry.compress_type = zipfile.ZIP_DEFLATED
        # The size at the beginning: a file that is being written may grow faster than it is read.
        left = status.st_size
        with self._archive.open(entry, "w", force_zip64=left >= _ZIP64_FROM) as target:
            _deflate_with_isal(target)
            while left > 0:
                try:
                    block = source.read(min(BLOCK_BYTES, left))
                except OSError as error:
                    self.skip(name, f"cut off: {error.strerror}")
                    break
                if not block:
                    break
                if self._stopping.is_set():
                    raise ArchiveFailed("The client stops")
                target.write(block)
                left -= len(block)


def _target(path: Path, inside: Path) -> Path:
    """``path``, or where it leads if it is a link. Raises ``_NotRegular`` if that is outside."""
    if not path.is_symlink():
        return path
    # realpath, because Path.resolve raises something else for a loop in each version of Python.
    target = Path(os.path.realpath(path))
    if not target.is_relative_to(os.path.realpath(inside)):
        raise _NotRegular("it is a link that leads outside")
    return target


class _NotRegular(Exception):
    """Something that is no regular file, or a link to anything."""


def _open_regular(path: Path) -> int:
    """Open a regular file.

    The kind is asked of the opened file, so that nothing can be swapped in between; O_NONBLOCK
    keeps a FIFO from blocking. Raises ``_NotRegular``, ``OSError``.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _NotRegular("it is a symbolic link") from error
        if error.errno == errno.ENXIO:
            raise _NotRegular("it is a socket or device") from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _NotRegular("it is no regular file")
    return descriptor


def _deflate_with_isal(target: Any) -> None:
    """Let igzip compress instead of zlib: several times faster at a similar ratio.

    ``zipfile`` has no public way to choose a compressor object; the attribute that holds it has had
    this name since Python 2.7, and a test compares the result with zlib's on each version.
    """
    target._compressor = isal_zlib.compressobj(DEFLATE_LEVEL, isal_zlib.DEFLATED, -15)


def _zip_time(seconds: float) -> tuple[int, int, int, int, int, int]:
    """Local time as ZIP can hold it: from 1980 to 2107."""
    moment = _EARLIEST
    with contextlib.suppress(ValueError, OverflowError, OSError):
        moment = time.localtime(seconds)[:6]
    return min(max(moment, _EARLIEST), _LATEST)
