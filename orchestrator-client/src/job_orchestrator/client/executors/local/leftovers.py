"""Removes the files and IPC objects that payloads leave outside their workspaces.

The next payload of the same user could read them, or be misled by them. The users in question must
not run anything at the time of a call. All functions block: call them in a thread.
"""

import logging
import os
import subprocess
from collections.abc import Iterator, Set
from pathlib import Path
from uuid import uuid4

from job_orchestrator.client.workspace.deferred_removal import DeferredRemoval, remove_if_small

logger = logging.getLogger(__name__)

FOLDERS = tuple(map(Path, ("/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue")))  # noqa: S108
DOOMED = "jo-client-removes."
"""Prefix of the names of large folders that are closed to their users and wait for removal."""

IPC = Path("/proc/sysvipc")
IPC_KINDS = (("shm", "shmid", "-m"), ("sem", "semid", "-s"), ("msg", "msqid", "-q"))
"""File below ``IPC``, column of the id, and option of ipcrm."""

IPCRM_TIMEOUT_S = 10.0


def remove_leftovers(uids: Set[int], large: DeferredRemoval) -> None:
    """Remove the files and the System V IPC objects of users.

    Failures are logged; they do not prevent the next payload from starting.
    """
    for folder in FOLDERS:
        for path in _owned(folder, uids):
            try:
                _remove(path, large)
            except OSError as error:
                logger.error("%s, which a payload left, cannot be removed: %s", path, error)
    for uid, options in _ipc_objects(uids).items():
        try:
            _ipcrm(uid, options)
        except (OSError, subprocess.SubprocessError) as error:
            logger.error("IPC objects of user %d cannot be removed: %s", uid, error)


def _owned(folder: Path, uids: Set[int]) -> Iterator[Path]:
    """Yield the entries of a folder that users own.

    Subfolders of other users are not searched: the users cannot write there.
    """
    try:
        with os.scandir(folder) as scan:
            for entry in scan:
                try:
                    if entry.stat(follow_symlinks=False).st_uid in uids:
                        yield Path(entry.path)
                except FileNotFoundError:
                    continue  # other processes use the folder too
    except OSError:
        return  # the folder does not exist on this machine


def _remove(path: Path, large: DeferredRemoval) -> None:
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
    elif not remove_if_small(path):
        doomed = path.with_name(f"{DOOMED}{uuid4().hex}")
        path.rename(doomed)
        _close(doomed)
        large.add(doomed)


def resume_unfinished_removals(large: DeferredRemoval) -> None:
    """Queue the large folders that a previous process of jo-client did not finish removing."""
    for folder in FOLDERS:
        for path in _owned(folder, {os.geteuid()}):
            if path.name.startswith(DOOMED):
                large.add(path)


def _close(folder: Path) -> None:
    """Make a folder inaccessible to the user who created it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchown(descriptor, os.geteuid(), os.getegid())
        os.fchmod(descriptor, 0o700)
    finally:
        os.close(descriptor)


def _ipc_objects(uids: Set[int]) -> dict[int, list[str]]:
    """Return the options of ipcrm for the objects that users created, by user."""
    found: dict[int, list[str]] = {}
    for name, column, option in IPC_KINDS:
        try:
            header, *lines = (IPC / name).read_text().splitlines()
        except (OSError, ValueError):
            continue  # a kernel without this kind of object
        columns = header.split()
        number, creator = columns.index(column), columns.index("cuid")
        for line in lines:
            fields = line.split()
            if int(fields[creator]) in uids:
                found.setdefault(int(fields[creator]), []).extend((option, fields[number]))
    return found


def _ipcrm(uid: int, options: list[str]) -> None:
    """Remove IPC objects as their user: root needs a capability that services seldom have."""
    subprocess.run(  # noqa: S603
        ["ipcrm", *options],  # noqa: S607
        user=uid,
        group=uid,
        extra_groups=[],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
        timeout=IPCRM_TIMEOUT_S,
    )
