"""The data folder of a service (DATA_PATH): writable, and locked by one process.

All functions except ``locked`` block: call them in a thread.
"""

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from job_orchestrator.common.errors import StartupError, StorageFull
from job_orchestrator.common.storage.durable import full_disk_as_domain_error


def make_data_folder(data_path: Path, *folders: Path, mode: int = 0o777) -> None:
    """Create ``data_path`` and ``folders`` in it. Raises ``StartupError`` if one is not writable.

    ``mode`` are the permissions of created folders, reduced by the umask. A full disk is accepted:
    the service must start to remove old files.
    """
    try:
        for folder in (data_path, *folders):
            folder.mkdir(mode, parents=True, exist_ok=True)
            _check_writable_or_full(folder)
    except OSError as error:
        raise StartupError(
            f"DATA_PATH is {str(data_path)!r}, which can't be written: {error.strerror}."
            " It must be a writable folder"
        ) from error


def _check_writable_or_full(folder: Path) -> None:
    with contextlib.suppress(StorageFull), full_disk_as_domain_error():
        check_writable(folder)


def check_writable(folder: Path) -> None:
    """Raise ``OSError`` unless ``folder`` is writable."""
    with tempfile.TemporaryFile(dir=folder) as probe:
        probe.write(b"x")


@contextmanager
def locked(folder: Path, *, command: str, data_path: Path) -> Iterator[None]:
    """Lock ``folder`` for this process, until it leaves the context or dies. Never waits.

    Two servers on one queue would run jobs twice; a second client would remove the payloads of the
    first as leftovers. Raises ``StartupError`` if another ``command`` has locked it.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StartupError(
                f"Another {command} uses DATA_PATH {str(data_path)!r}; stop it, or choose another"
            ) from error
        yield
    finally:
        os.close(descriptor)
