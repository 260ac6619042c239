"""The files of a work folder, as a script has left them: opened without being led astray."""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from orchestrator_common.paths import RESERVED

Skip = Callable[[str, str], None]
"""Told the name of what is left out, and why."""


class Entry(NamedTuple):
    """Something below the work folder, and its relative name; that of an empty folder ends in /."""

    path: Path
    name: str


def walk(top: Path, skip: Skip) -> Iterator[Entry]:
    """Everything below ``top`` that isn't a folder, and empty folders.

    Not by recursion: a script can nest folders more deeply than Python calls.
    """
    pending = [Entry(top, "")]
    while pending:
        folder, prefix = pending.pop()
        try:
            with os.scandir(folder) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError as error:
            skip(prefix or ".", error.strerror or "unreadable")
            continue
        if prefix and not entries:
            yield Entry(folder, prefix)
        for entry in entries:
            found = Entry(Path(entry.path), f"{prefix}{entry.name}")
            if found.name == RESERVED:  # it would mix with ours
                skip(RESERVED, "the name is reserved")
            elif entry.is_dir(follow_symlinks=False):
                pending.append(Entry(found.path, f"{found.name}/"))
            else:
                yield found


def target_of(path: Path, inside: Path) -> Path:
    """``path``, or where it leads if it is a link. Raises ``NotRegular`` if that is outside."""
    if not path.is_symlink():
        return path
    # realpath, because Path.resolve raises something else for a loop in each version of Python.
    target = Path(os.path.realpath(path))
    if not target.is_relative_to(os.path.realpath(inside)):
        raise NotRegular("it is a link that leads outside")
    return target


class NotRegular(Exception):
    """Something that is no regular file, or a link to anything."""


def open_regular(path: Path) -> int:
    """Open a regular file.

    The kind is asked of the opened file, so that nothing can be swapped in between; O_NONBLOCK
    keeps a FIFO from blocking. Raises ``NotRegular``, ``OSError``.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise NotRegular("it is a symbolic link") from error
        if error.errno == errno.ENXIO:
            raise NotRegular("it is a socket or device") from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotRegular("it is no regular file")
    return descriptor
