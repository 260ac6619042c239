"""Removes folders, whatever scripts have made of them. All of it blocks: call it in a thread."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OWN_RIGHTS = 0o700


def _go_on() -> None:
    pass


class _Level(NamedTuple):
    """A folder on the way down: its name, what it is, and its folders that are not empty."""

    name: str
    identity: tuple[int, int]
    folders: list[str]


def remove_tree(top: Path, *, keep_top: bool = False, find: Callable[[], None] = _go_on) -> None:
    """Remove a folder with all that is in it.

    Folders that were made unwritable are no obstacle, and neither is any depth of nesting: it goes
    down and up by one name at a time, so that no path grows too long for the system, nothing
    recurses, and one folder is open. None is entered that is a link. ``find`` is called for each
    entry and may raise to stop. Raises ``OSError`` for what belongs to somebody else.
    """
    here = _open(str(top), None)
    try:
        levels = [_Level("", _identity(here), _empty(here, find))]
        while True:
            level = levels[-1]
            if level.folders:
                name = level.folders.pop()
                here = _instead_of(here, _open(name, here))
                levels.append(_Level(name, _identity(here), _empty(here, find)))
                continue
            levels.pop()
            if not levels:
                break
            here = _instead_of(here, os.open("..", _FLAGS, dir_fd=here))
            if _identity(here) != levels[-1].identity:
                raise OSError(errno.ESTALE, "Moved while it was removed", level.name)
            os.rmdir(level.name, dir_fd=here)
    finally:
        os.close(here)
    if not keep_top:
        top.rmdir()


def _open(name: str, at: int | None) -> int:
    """Open a folder, so that it can be emptied."""
    try:
        descriptor = os.open(name, _FLAGS, dir_fd=at)
    except PermissionError:
        place = os.open(name, _FLAGS | os.O_PATH, dir_fd=at)
        try:
            # By what is open, not by its name: that may have become a link.
            os.chmod(f"/proc/self/fd/{place}", _OWN_RIGHTS)  # noqa: PTH101
        finally:
            os.close(place)
        return os.open(name, _FLAGS, dir_fd=at)
    try:
        if os.fstat(descriptor).st_mode & _OWN_RIGHTS != _OWN_RIGHTS:
            os.fchmod(descriptor, _OWN_RIGHTS)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _instead_of(old: int, new: int) -> int:
    os.close(old)
    return new


def _identity(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def _empty(folder: int, find: Callable[[], None]) -> list[str]:
    """Remove what is no folder and what is an empty one; the names of the others."""
    files: list[str] = []
    folders: list[str] = []
    with os.scandir(folder) as scan:
        for entry in scan:
            find()
            (folders if entry.is_dir(follow_symlinks=False) else files).append(entry.name)
    for name in files:
        os.unlink(name, dir_fd=folder)
    return [name for name in folders if not _removed(name, folder)]


def _removed(name: str, at: int) -> bool:
    try:
        os.rmdir(name, dir_fd=at)
    except OSError:
        return False
    return True
