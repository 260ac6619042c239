"""A payload's folders.

::

    DATA_PATH/incoming/<uuid>/work/…    files that are still arriving
    DATA_PATH/<uuid>/work/…             what run.sh sees: its current folder
    DATA_PATH/<uuid>/tmp/               its TMPDIR
    DATA_PATH/<uuid>/.meta/             stdout.txt, stderr.txt, result.json, results.zip

What is the system's lies beside the work folder, never in it: no file that is uploaded or written
by a script can replace or fake it. All methods block: call them in a thread.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from orchestrator_common.durable import full_disk_as_domain_error
from orchestrator_common.errors import StartupError

INCOMING = "incoming"
SCRIPT = "run.sh"


@dataclass(frozen=True)
class Workspace:
    """The folders of one payload."""

    root: Path

    @property
    def work(self) -> Path:
        """What run.sh sees."""
        return self.root / "work"

    @property
    def scratch(self) -> Path:
        """TMPDIR of the script; not part of the results."""
        return self.root / "tmp"

    @property
    def meta(self) -> Path:
        """What the system itself keeps of the payload."""
        return self.root / ".meta"

    @property
    def stdout(self) -> Path:
        """Standard output of run.sh."""
        return self.meta / "stdout.txt"

    @property
    def stderr(self) -> Path:
        """Standard error of run.sh."""
        return self.meta / "stderr.txt"

    @property
    def results(self) -> Path:
        """The packed results, once there are any."""
        return self.meta / "results.zip"

    def script(self) -> bytes:
        """Content of run.sh, as far as the check reads it."""
        with (self.work / SCRIPT).open("rb") as file:
            return file.read(1 << 20)

    def remove(self) -> None:
        """Remove everything, also folders that the script made unwritable. Gone is no error."""
        if self.root.exists():
            for folder, _, _ in os.walk(self.root):
                Path(folder).chmod(0o700)
            shutil.rmtree(self.root)


@dataclass(frozen=True)
class Workspaces:
    """The data folder."""

    root: Path

    def of(self, uuid: str) -> Workspace:
        """The workspace of a payload."""
        return Workspace(self.root / uuid)

    def prepare(self) -> None:
        """Make the data folder. Raises ``StartupError`` if it can't be written."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self.check()
        except OSError as error:
            raise StartupError(
                f"DATA_PATH is {str(self.root)!r}, which can't be written: {error.strerror}."
                " It must be a writable folder"
            ) from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the data folder for this process. Raises ``StartupError`` if another one holds it.

        A second client on the same folder would take the first one's payloads for leftovers.
        """
        descriptor = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError as error:
            raise StartupError(
                f"Another jo-client uses DATA_PATH {str(self.root)!r}; stop it, or choose another"
            ) from error
        finally:
            os.close(descriptor)

    def check(self) -> None:
        """Raise ``OSError`` unless the folder can be written."""
        with tempfile.TemporaryFile(dir=self.root) as probe:
            probe.write(b"x")

    def clear(self) -> None:
        """Remove the workspaces of an earlier life: nobody knows their payloads any more."""
        for entry in list(os.scandir(self.root)):
            if entry.is_dir(follow_symlinks=False):
                Workspace(Path(entry.path)).remove()

    def begin(self, uuid: str) -> Path:
        """Make the folder that a payload's files arrive in, and return it."""
        work = Workspace(self.root / INCOMING / uuid).work
        with full_disk_as_domain_error():
            work.mkdir(parents=True)
        return work

    def accept(self, uuid: str) -> Workspace:
        """Make what has arrived whole a workspace."""
        workspace = self.of(uuid)
        with full_disk_as_domain_error():
            arrived = Workspace(self.root / INCOMING / uuid)
            arrived.meta.mkdir()
            arrived.scratch.mkdir()
            arrived.root.rename(workspace.root)
        return workspace

    def discard(self, uuid: str) -> None:
        """Remove what there is of a payload that was refused."""
        shutil.rmtree(self.root / INCOMING / uuid, ignore_errors=True)
        shutil.rmtree(self.root / uuid, ignore_errors=True)
