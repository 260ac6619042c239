"""The files of a work folder, as a script has left them: opened without being led astray."""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from job_orchestrator.common.protocol.paths import RESERVED

Skip = Callable[[str, str], None]
"""Told the name of what is left out, and why."""

Find = Callable[[], None]
"""Called for each file and folder, as soon as there is one; it may raise to stop."""


class Entry(NamedTuple):
    """Something below the work folder, and its relative name; that of an empty folder ends in /."""

    path: str
    name: str


def walk(top: Path, skip: Skip, find: Find) -> Iterator[Entry]:
    """Everything below ``top``, a real path, that isn't a folder; and empty folders.

    Not by recursion: a script can nest folders more deeply than Python calls. A script that still
    runs can put a link in the place of a folder that was seen already: that is left out.
    """
    pending = [Entry(str(top), "")]
    while pending:
        folder, prefix = pending.pop()
        try:
            names = _entries(folder, top, find)
        except NotRegular as reason:
            skip(prefix, str(reason))
            continue
        except OSError as error:
            skip(prefix or ".", error.strerror or "unreadable")
            continue
        if prefix and not names:
            yield Entry(folder, prefix)
        for name, is_folder in names:
            found = Entry(f"{folder}/{name}", f"{prefix}{name}")
            if found.name == RESERVED:  # it would mix with ours
                skip(RESERVED, "the name is reserved")
            elif is_folder:
                pending.append(Entry(found.path, f"{found.name}/"))
            else:
                yield found


def _entries(folder: str, top: Path, find: Find) -> list[tuple[str, bool]]:
    """Names in ``folder``, in order, and which are folders. Raises ``NotRegular``, ``OSError``."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _check_inside(descriptor, top)
        with os.scandir(descriptor) as scan:
            names = []
            for entry in scan:
                find()
                names.append((entry.name, entry.is_dir(follow_symlinks=False)))
            return sorted(names)
    finally:
        os.close(descriptor)


def _check_inside(descriptor: int, top: Path) -> None:
    """Raise ``NotRegular`` if what was opened does not lie in ``top``.

    O_NOFOLLOW is about the last component of a path only; a folder above it may have become a link
    since it was seen. The kernel knows where an open file is, whatever path led to it.
    """
    found = os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115 (this runs for every file)
    if not f"{found}/".startswith(f"{top}/"):
        raise NotRegular("it is a link that leads outside")


class NotRegular(Exception):
    """Something that is no regular file, or a link to anything."""


def open_regular(path: str, inside: Path) -> int:
    """Open a regular file, or the one that a link leads to, in ``inside``, a real path.

    Raises ``NotRegular``, ``OSError``.
    """
    try:
        return _open(path, inside)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
    # realpath, because Path.resolve raises something else for a loop in each version of Python.
    target = os.path.realpath(path)
    if not Path(target).is_relative_to(inside):
        raise NotRegular("it is a link that leads outside")
    try:
        return _open(target, inside)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise NotRegular("it is a symbolic link") from error
        raise


def _open(path: str, inside: Path) -> int:
    """Open a regular file that is no link and lies in ``inside``.

    The kind and the place are asked of the opened file, so that nothing can be swapped in between;
    O_NONBLOCK keeps a FIFO from blocking. Raises ``NotRegular``, ``OSError`` (``ELOOP``: a link).
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise NotRegular("it is a socket or device") from error
        raise
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise NotRegular("it is no regular file")
        _check_inside(descriptor, inside)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
