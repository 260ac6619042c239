"""Lists, opens and reads the files that a script left in its work folder.

Symbolic links out of the work folder are never followed, even if the script swaps them while its
folder is walked. Holes of sparse files are not read.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from job_orchestrator.client.results.deflate import BLOCK_BYTES, ZEROS
from job_orchestrator.common.protocol.paths import RESERVED

Skip = Callable[[str, str], None]
"""Called with the name of an entry that is left out, and the reason."""

CountEntry = Callable[[], None]
"""Called for each file and folder as soon as it is found; may raise to stop."""

OUT_OF_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""Errors of the client or its machine: the file in question can be read later."""

_STATUS_BLOCK_BYTES = 512


class Entry(NamedTuple):
    """A path below the work folder and its relative name; that of an empty folder ends in /."""

    path: str
    name: str


class NotRegular(Exception):
    """The path is not a regular file in the work folder, nor a link to one."""


def walk(top: Path, skip: Skip, count_entry: CountEntry) -> Iterator[Entry]:
    """Yield all entries below ``top``, a real path, that are not folders, and empty folders.

    Not recursive: a script can nest folders more deeply than Python calls. A running script can
    replace a folder that was listed already by a link: such a folder is left out.
    """
    pending = [Entry(str(top), "")]
    while pending:
        folder, prefix = pending.pop()
        try:
            names = _entries(folder, top, count_entry)
        except NotRegular as reason:
            skip(prefix, str(reason))
            continue
        except OSError as error:
            if error.errno in OUT_OF_RESOURCES:
                raise
            skip(prefix or ".", error.strerror or "unreadable")
            continue
        if prefix and not names:
            yield Entry(folder, prefix)
        for name, is_folder in names:
            found = Entry(f"{folder}/{name}", f"{prefix}{name}")
            if found.name == RESERVED:  # the name of the system's own folder in the archive
                skip(RESERVED, "the name is reserved")
            elif is_folder:
                pending.append(Entry(found.path, f"{found.name}/"))
            else:
                yield found


def open_regular(path: str, inside: Path, count_link: CountEntry = lambda: None) -> int:
    """Open a regular file in ``inside``, a real path, or the one that a link leads to there.

    ``count_link`` is called before a link is followed. Raises ``NotRegular``, ``OSError``.
    """
    try:
        return _open(path, inside)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
    count_link()
    # realpath, because Path.resolve raises different errors for a loop in each version of Python.
    target = os.path.realpath(path)
    if not Path(target).is_relative_to(inside):
        raise NotRegular("it is a link that leads outside")
    try:
        return _open(target, inside)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise NotRegular("it is a symbolic link") from error
        raise


def read_blocks(descriptor: int, size: int) -> Iterator[bytes]:
    """Yield at most ``size`` bytes of a file, which may be shorter.

    Blocks that lie in a hole are ``ZEROS``. Raises ``OSError``.
    """
    sparse = os.fstat(descriptor).st_blocks * _STATUS_BLOCK_BYTES < size
    at = next_data = 0
    while at < size:
        if sparse and next_data <= at:
            next_data = _next_data(descriptor, at)
        if min(next_data, size) - at >= BLOCK_BYTES:
            block = ZEROS
        else:
            block = os.pread(descriptor, min(BLOCK_BYTES, size - at), at)
            if not block:
                return
        yield block
        at += len(block)


def _entries(folder: str, top: Path, count_entry: CountEntry) -> list[tuple[str, bool]]:
    """List ``folder`` in order: each name, and whether it is a folder.

    Raises ``NotRegular``, ``OSError``.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _check_inside(descriptor, top)
        with os.scandir(descriptor) as scan:
            names = []
            for entry in scan:
                count_entry()
                names.append((entry.name, entry.is_dir(follow_symlinks=False)))
            return sorted(names)
    finally:
        os.close(descriptor)


def _open(path: str, inside: Path) -> int:
    """Open a regular file that is not a link and lies in ``inside``.

    Type and location are checked on the open file, so that nothing can be swapped between check and
    use. O_NONBLOCK keeps a FIFO from blocking. Raises ``NotRegular``, ``OSError`` (``ELOOP``: a
    link).
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise NotRegular("it is a socket or device") from error
        raise
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise NotRegular("it is not a regular file")
        _check_inside(descriptor, inside)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check_inside(descriptor: int, top: Path) -> None:
    """Raise ``NotRegular`` if an open file does not lie in ``top``.

    O_NOFOLLOW concerns only the last component of a path; a folder above it may have become a link
    since it was listed. The kernel knows the location of an open file, whichever path led to it.
    """
    found = os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115 (this runs for every file)
    if not f"{found}/".startswith(f"{top}/"):
        raise NotRegular("it is a link that leads outside")


def _next_data(descriptor: int, at: int) -> int:
    """Find the end of the hole at ``at``; ``at`` itself if there is no hole, or none is known."""
    try:
        return os.lseek(descriptor, at, os.SEEK_DATA)
    except OSError as error:
        return os.fstat(descriptor).st_size if error.errno == errno.ENXIO else at
