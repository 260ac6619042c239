"""Mounts that a script left in its folders. All functions block: call them in a thread."""

import contextlib
import ctypes
import errno
import os
import select
import threading
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")
_BLOCK_BYTES = 1 << 16
_MNT_DETACH = 2
_UMOUNT_NOFOLLOW = 8
_libc = ctypes.CDLL(None, use_errno=True)


class MountTable:
    """The mount table of this process, read again only after it has changed. Thread-safe.

    The kernel reports a change as a priority event of the file (proc(5), mountinfo).
    """

    def __init__(self) -> None:
        self._text = b""
        self._descriptor = -1
        self._poll = select.poll()
        self._lock = threading.Lock()

    def names(self, name: str) -> bool:
        """Return whether the table names ``name``, such as in the path of a mount."""
        with self._lock:
            if self._descriptor < 0:
                self._descriptor = os.open(MOUNTS, os.O_RDONLY | os.O_CLOEXEC)
                self._poll.register(self._descriptor, select.POLLPRI)
                self._read()
            while self._poll.poll(0):
                self._read()
            return name.encode() in self._text

    def _read(self) -> None:
        blocks = []
        at = 0
        while block := os.pread(self._descriptor, _BLOCK_BYTES, at):
            blocks.append(block)
            at += len(block)
        self._text = b"".join(blocks)


def detach_mounts(top: Path) -> None:
    """Detach all mounts below a folder, the innermost first, as far as this process may."""
    for path in sorted(_mounts_below(top), key=len, reverse=True):
        _libc.umount2(os.fsencode(path), _MNT_DETACH | _UMOUNT_NOFOLLOW)


def check_without_mounts(top: Path) -> None:
    """Raise ``OSError`` if something is mounted at or below a folder.

    Otherwise its removal would remove the content of another file system.
    """
    for path in _mounts_below(top.parent):
        if f"{path}/".startswith(f"{os.path.realpath(top)}/"):
            raise OSError(errno.EBUSY, "A file system is mounted there", path)


def _mounts_below(top: Path) -> list[str]:
    prefix = os.path.realpath(top)
    return [path for path in _mount_points() if path.startswith(f"{prefix}/")]


def _mount_points() -> list[str]:
    with contextlib.suppress(FileNotFoundError):
        lines = MOUNTS.read_bytes().splitlines()
        return [os.fsdecode(_unescaped(line.split()[4])) for line in lines]
    return []


def _unescaped(field: bytes) -> bytes:
    """Replace the octal escapes, by which the kernel writes spaces and line feeds."""
    return field.decode("unicode_escape").encode("latin-1")
