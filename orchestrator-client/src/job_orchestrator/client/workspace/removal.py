"""Removal of folder trees of any depth and with any permissions. Blocks: call it in a thread."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OWN_RIGHTS = 0o700


def _ignore_entry() -> None:
    pass


class _Level(NamedTuple):
    """A folder on the path to the present one, and its subfolders that are not removed yet."""

    name: str
    identity: tuple[int, int]
    folders: list[str]


def remove_tree(
    top: Path, *, keep_top: bool = False, on_entry: Callable[[], None] = _ignore_entry
) -> None:
    """Remove a folder with its content.

    Works for folders without permissions and for any depth of nesting: the walk goes down and up by
    one name at a time, so no path gets too long for the system, nothing recurses, and one folder is
    open. Links are not entered. ``on_entry`` is called for each entry and may raise to stop.
    Raises ``OSError`` for files of other users.
    """
    here = _open(str(top), None)
    try:
        levels = [_Level("", _identity(here), _remove_content(here, on_entry))]
        while True:
            level = levels[-1]
            if level.folders:
                name = level.folders.pop()
                here = _replace_open(here, _open(name, here))
                levels.append(_Level(name, _identity(here), _remove_content(here, on_entry)))
                continue
            levels.pop()
            if not levels:
                break
            here = _replace_open(here, os.open("..", _FLAGS, dir_fd=here))
            if _identity(here) != levels[-1].identity:
                raise OSError(errno.ESTALE, "Moved during its removal", level.name)
            os.rmdir(level.name, dir_fd=here)
    finally:
        os.close(here)
    if not keep_top:
        top.rmdir()


def _open(name: str, at: int | None) -> int:
    """Open a folder, with permissions to remove its content."""
    try:
        descriptor = os.open(name, _FLAGS, dir_fd=at)
    except PermissionError:
        place = os.open(name, _FLAGS | os.O_PATH, dir_fd=at)
        try:
            # Through the descriptor, not by name: the name may refer to a link by now.
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


def _replace_open(old: int, new: int) -> int:
    os.close(old)
    return new


def _identity(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def _remove_content(folder: int, on_entry: Callable[[], None]) -> list[str]:
    """Remove files and empty folders; return the names of the other folders."""
    files: list[str] = []
    folders: list[str] = []
    with os.scandir(folder) as scan:
        for entry in scan:
            on_entry()
            (folders if entry.is_dir(follow_symlinks=False) else files).append(entry.name)
    for name in files:
        os.unlink(name, dir_fd=folder)
    return [name for name in folders if not _remove_if_empty(name, folder)]


def _remove_if_empty(name: str, at: int) -> bool:
    try:
        os.rmdir(name, dir_fd=at)
    except OSError:
        return False
    return True
