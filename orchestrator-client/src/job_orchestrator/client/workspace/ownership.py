"""Files of scripts that run as another user than the client, which is root then.

All of it blocks: call it in a thread.
"""

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

from job_orchestrator.client.model import ScriptUser

_libc = ctypes.CDLL(None, use_errno=True)


def give_to_user(root: Path, folders: tuple[Path, ...], user: ScriptUser) -> None:
    """Give ``folders`` of a payload with all in them to a user, and let it through to them.

    Nothing runs there yet, so that nothing can be swapped meanwhile.
    """
    for folder in folders:
        for _, names, files, descriptor in os.fwalk(folder):
            for name in (*names, *files):
                os.chown(name, *user, dir_fd=descriptor, follow_symlinks=False)
        os.chown(folder, *user)
        folder.chmod(0o700)
    root.chmod(0o711)


def close_to_other_users(root: Path) -> None:
    """Close a payload's folder: who runs as its user later finds nothing there."""
    root.chmod(0o700)


@contextlib.contextmanager
def impersonate_owner(folder: Path) -> Iterator[None]:
    """Open files as the owner of ``folder`` could, if that is not the client itself.

    A script may put a link in the place of a file at any moment. Where the client follows it as
    root, it would give away what only root can read. The kernel keeps this identity for each
    thread (setfsuid(2)), so that no other work is concerned.
    """
    status = folder.stat() if os.geteuid() == 0 and folder.exists() else None
    if status is None or status.st_uid == 0:
        yield
        return
    uid, gid = _libc.setfsuid(status.st_uid), _libc.setfsgid(status.st_gid)
    try:
        if _libc.setfsuid(-1) != status.st_uid or _libc.setfsgid(-1) != status.st_gid:
            raise PermissionError(f"The rights of user {status.st_uid} can't be had")
        yield
    finally:
        _libc.setfsuid(uid)
        _libc.setfsgid(gid)
