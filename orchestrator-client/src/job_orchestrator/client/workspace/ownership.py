"""File ownership for scripts that run as another user than the client, which is root then.

All functions block: call them in a thread.
"""

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

from job_orchestrator.client.model import ScriptUser

_libc = ctypes.CDLL(None, use_errno=True)


def give_to_user(root: Path, folders: tuple[Path, ...], user: ScriptUser) -> None:
    """Make a user the owner of ``folders`` of a payload and their content, and let it reach them.

    No script runs there yet, so no file can be swapped during the change.
    """
    for folder in folders:
        for _, names, files, descriptor in os.fwalk(folder):
            for name in (*names, *files):
                os.chown(name, *user, dir_fd=descriptor, follow_symlinks=False)
        os.chown(folder, *user)
        folder.chmod(0o700)
    root.chmod(0o711)


def close_to_other_users(folder: int) -> None:
    """Close a payload's open folder to other users, also to scripts that run as its user later."""
    os.fchmod(folder, 0o700)


@contextlib.contextmanager
def impersonate_owner(folder: Path) -> Iterator[None]:
    """Access files with the rights of the owner of ``folder``, if that is not the client itself.

    A script can replace a file by a link at any moment. A client that followed the link as root
    would disclose files that only root may read. The kernel keeps this identity for each thread
    (setfsuid(2)), so other threads are not affected. Raises ``PermissionError``.
    """
    status = folder.stat() if os.geteuid() == 0 and folder.exists() else None
    if status is None or status.st_uid == 0:
        yield
        return
    uid, gid = _libc.setfsuid(status.st_uid), _libc.setfsgid(status.st_gid)
    try:
        if _libc.setfsuid(-1) != status.st_uid or _libc.setfsgid(-1) != status.st_gid:
            raise PermissionError(f"Can't take on the rights of user {status.st_uid}")
        yield
    finally:
        _libc.setfsuid(uid)
        _libc.setfsgid(gid)
