"""DATA_PATH of a service: it has to be writable, and one process at a time works on it.

All functions block: call them in a thread, but for ``locked``, which never waits.
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
    """Make ``data_path`` and ``folders`` in it. Raises ``StartupError`` if it can't be written.

    ``mode`` are the permissions of those that are new, less what the umask takes.
    A full disk is no reason not to start: to start is what makes room, when old files are removed.
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
    """Raise ``OSError`` unless ``folder`` can be written."""
    with tempfile.TemporaryFile(dir=folder) as probe:
        probe.write(b"x")


@contextmanager
def locked(folder: Path, *, command: str, data_path: Path) -> Iterator[None]:
    """Hold ``folder`` for this process, until it leaves the context or dies.

    Two servers on one queue would run jobs twice; a second client would take the payloads of the
    first one for leftovers. Raises ``StartupError`` if another ``command`` holds it.
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
