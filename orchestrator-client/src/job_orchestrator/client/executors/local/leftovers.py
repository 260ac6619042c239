"""What payloads leave outside their folders, where everybody may leave something.

The next payload of the same user could read it, or be misled by it. Nothing runs as the users in
question; all of it blocks: call it in a thread.
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
"""What begins the names of large folders that users have lost already."""

IPC = Path("/proc/sysvipc")
IPC_KINDS = (("shm", "shmid", "-m"), ("sem", "semid", "-s"), ("msg", "msqid", "-q"))
"""File, column of the id, and flag of ipcrm."""

IPCRM_TIMEOUT_S = 10.0


def remove_leftovers(uids: Set[int], large: DeferredRemoval) -> None:
    """Remove the files and the System V IPC objects of users.

    Nobody is kept from a start by what can't be removed: it is told.
    """
    for folder in FOLDERS:
        for path in _owned(folder, uids):
            try:
                _remove(path, large)
            except OSError as error:
                logger.error("%s, which a payload left, can't be removed: %s", path, error)
    for uid, flags in _ipc_objects(uids).items():
        try:
            _ipcrm(uid, flags)
        except (OSError, subprocess.SubprocessError) as error:
            logger.error("IPC objects of user %d can't be removed: %s", uid, error)


def _owned(folder: Path, uids: Set[int]) -> Iterator[Path]:
    """What users own directly in a folder. What is in folders of others they can't have made."""
    try:
        with os.scandir(folder) as scan:
            for entry in scan:
                try:
                    if entry.stat(follow_symlinks=False).st_uid in uids:
                        yield Path(entry.path)
                except FileNotFoundError:
                    continue  # others use the folder too
    except OSError:
        return  # there is none on this machine


def _remove(path: Path, large: DeferredRemoval) -> None:
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
    elif not remove_if_small(path):
        doomed = path.with_name(f"{DOOMED}{uuid4().hex}")
        path.rename(doomed)
        _close(doomed)
        large.add(doomed)


def remove_later(large: DeferredRemoval) -> None:
    """Let be removed what an earlier life has left unfinished."""
    for folder in FOLDERS:
        for path in _owned(folder, {os.geteuid()}):
            if path.name.startswith(DOOMED):
                large.add(path)


def _close(folder: Path) -> None:
    """Keep a folder's user out of it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchown(descriptor, os.geteuid(), os.getegid())
        os.fchmod(descriptor, 0o700)
    finally:
        os.close(descriptor)


def _ipc_objects(uids: Set[int]) -> dict[int, list[str]]:
    """Flags of ipcrm for what users have made, by user."""
    found: dict[int, list[str]] = {}
    for name, column, flag in IPC_KINDS:
        try:
            header, *lines = (IPC / name).read_text().splitlines()
        except (OSError, ValueError):
            continue  # a kernel without them
        columns = header.split()
        number, creator = columns.index(column), columns.index("cuid")
        for line in lines:
            fields = line.split()
            if int(fields[creator]) in uids:
                found.setdefault(int(fields[creator]), []).extend((flag, fields[number]))
    return found


def _ipcrm(uid: int, flags: list[str]) -> None:
    """As the user itself: for root it needs a capability that services seldom have."""
    subprocess.run(  # noqa: S603
        ["ipcrm", *flags],  # noqa: S607
        user=uid,
        group=uid,
        extra_groups=[],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
        timeout=IPCRM_TIMEOUT_S,
    )
