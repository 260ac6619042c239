"""Packs what a payload left behind into a ZIP.

Every regular file below the work folder goes in, dot files too, with its relative name; beside them
``.orchestrator/`` with the script's output and ``result.json``. What can't go in is skipped and
listed there; a script can't make packing fail or hang. All functions block: call them in a thread.
"""

import contextlib
import errno
import os
import stat
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import msgspec
from isal import isal_zlib

from orchestrator_client.errors import ArchiveFailed
from orchestrator_client.executors.base import Outcome
from orchestrator_client.workspace import Workspace
from orchestrator_common.durable import full_disk_as_domain_error, replace_durably
from orchestrator_common.paths import RESERVED

DEFLATE_LEVEL = 2
BLOCK_BYTES = 1 << 20
_EARLIEST = (1980, 1, 1, 0, 0, 0)
_LATEST = (2107, 12, 31, 23, 59, 58)


class Skipped(msgspec.Struct, frozen=True):
    """A file that is not in the ZIP, and why."""

    path: str
    reason: str


class ResultRecord(msgspec.Struct, frozen=True):
    """``.orchestrator/result.json``. Times are seconds since the epoch; None: not ended yet."""

    exit_code: int | None
    signal: int | None
    started_at: float | None
    ended_at: float | None
    skipped: list[Skipped]


@dataclass
class _Packing:
    archive: zipfile.ZipFile
    skipped: list[Skipped] = field(default_factory=list)


def pack(workspace: Workspace, outcome: Outcome | None) -> Path:
    """Write the results of an ended payload, whole or not at all, and return their path.

    Raises ``StorageFull``, ``ArchiveFailed``.
    """
    temporary = workspace.meta / ".results.zip.tmp"
    _write(temporary, workspace, outcome)
    with full_disk_as_domain_error():
        replace_durably(temporary, workspace.results)
    return workspace.results


def pack_partial(workspace: Workspace, target: Path) -> None:
    """Write what there is of a running payload to ``target``.

    Raises ``StorageFull``, ``ArchiveFailed``.
    """
    _write(target, workspace, None)


def _write(target: Path, workspace: Workspace, outcome: Outcome | None) -> None:
    try:
        with full_disk_as_domain_error(), target.open("wb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, allowZip64=True) as archive:
                packing = _Packing(archive)
                for path, relative in _entries(workspace.work, packing):
                    _add(packing, path, relative, inside=workspace.work)
                _add_record(packing, workspace, outcome)
            file.flush()
            os.fsync(file.fileno())
    except BaseException as error:
        target.unlink(missing_ok=True)
        if isinstance(error, OSError | zipfile.LargeZipFile | ValueError):
            raise ArchiveFailed(f"The results could not be packed: {error}") from error
        raise


def _add_record(packing: _Packing, workspace: Workspace, outcome: Outcome | None) -> None:
    for path in (workspace.stdout, workspace.stderr):
        if path.exists():
            _add(packing, path, f"{RESERVED}/{path.name}", inside=workspace.meta)
    record = ResultRecord(
        exit_code=outcome.exit_code if outcome else None,
        signal=outcome.signal if outcome else None,
        started_at=outcome.started_at if outcome else None,
        ended_at=outcome.ended_at if outcome else None,
        skipped=packing.skipped,
    )
    content = msgspec.json.format(msgspec.json.encode(record), indent=2)
    packing.archive.writestr(f"{RESERVED}/result.json", content)


def _entries(top: Path, packing: _Packing) -> Iterator[tuple[Path, str]]:
    """Path and relative name of everything below ``top`` but folders."""

    def unreadable(error: OSError) -> None:
        name = os.path.relpath(error.filename or top, top)
        packing.skipped.append(Skipped(_shown(name), error.strerror or "unreadable"))

    for folder, folders, names in os.walk(top, onerror=unreadable):
        folders.sort()
        relative = os.path.relpath(folder, top)
        prefix = "" if relative == "." else f"{relative}/"
        # The work folder's own .orchestrator would mix with ours.
        if prefix == "" and RESERVED in folders:
            folders.remove(RESERVED)
            packing.skipped.append(Skipped(RESERVED, "the name is reserved"))
        for name in sorted(names):
            if prefix == "" and name == RESERVED:
                packing.skipped.append(Skipped(RESERVED, "the name is reserved"))
            else:
                yield Path(folder, name), f"{prefix}{name}"
        for name in folders:
            if Path(folder, name).is_symlink():
                yield Path(folder, name), f"{prefix}{name}"


def _add(packing: _Packing, path: Path, relative: str, *, inside: Path) -> None:
    """Add one file, or what a link to a file ``inside`` leads to; or note why it is skipped."""
    try:
        relative.encode()
    except UnicodeEncodeError:
        packing.skipped.append(Skipped(_shown(relative), "its name is not UTF-8"))
        return
    try:
        if path.is_symlink():
            path = path.resolve()
            if not path.is_relative_to(inside.resolve()):
                raise _NotRegular("it is a link that leads outside")
        descriptor = _open_regular(path)
    except _NotRegular as reason:
        packing.skipped.append(Skipped(relative, str(reason)))
        return
    except OSError as error:
        packing.skipped.append(Skipped(relative, error.strerror or "unreadable"))
        return
    with open(descriptor, "rb", buffering=0) as source:  # noqa: PTH123 (a descriptor, not a path)
        _copy(packing, source, relative)


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


def _copy(packing: _Packing, source: IO[bytes], relative: str) -> None:
    status = os.fstat(source.fileno())
    entry = zipfile.ZipInfo(relative, _zip_time(status.st_mtime))
    entry.external_attr = (status.st_mode & 0xFFFF) << 16
    entry.compress_type = zipfile.ZIP_DEFLATED
    # A file may grow while it is read: always leave room for a 64-bit size.
    with packing.archive.open(entry, "w", force_zip64=True) as target:
        _deflate_with_isal(target)
        try:
            while block := source.read(BLOCK_BYTES):
                target.write(block)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            packing.skipped.append(Skipped(relative, f"cut off: {error.strerror}"))


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


def _shown(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()
