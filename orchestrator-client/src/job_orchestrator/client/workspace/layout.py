"""A payload's folders.

::

    DATA_PATH/payloads/<uuid>/work/…             what run.sh sees: its current folder
    DATA_PATH/payloads/<uuid>/tmp/               its TMPDIR
    DATA_PATH/payloads/<uuid>/…                  stdout.txt, stderr.txt, results.zip

What is the system's lies beside the work folder, never in it: no file that is uploaded or written
by a script can replace or fake it. And it lies in a folder of its own, because everything in there
is removed at the start: a DATA_PATH that holds other things too loses none of them, a server that
runs beside the client with the same DATA_PATH included. All methods block: call them in a thread.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from job_orchestrator.client.workspace.removal import remove_tree
from job_orchestrator.common.errors import StartupError
from job_orchestrator.common.storage.data_folder import check_writable, locked, make_data_folder
from job_orchestrator.common.storage.durable import full_disk_as_domain_error

PAYLOADS = "payloads"
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
    def stdout(self) -> Path:
        """Standard output of run.sh."""
        return self.root / "stdout.txt"

    @property
    def stderr(self) -> Path:
        """Standard error of run.sh."""
        return self.root / "stderr.txt"

    @property
    def results(self) -> Path:
        """The packed results, once there are any."""
        return self.root / "results.zip"

    def complete(self) -> None:
        """Make a folder whose ``work`` has arrived whole a workspace. Raises ``StorageFull``.

        Nobody else sees what is in it, unless a script runs there as another user.
        """
        with full_disk_as_domain_error():
            self.scratch.mkdir()
            self.root.chmod(0o700)

    def script(self) -> bytes:
        """Content of run.sh, as far as the check reads it."""
        with (self.work / SCRIPT).open("rb") as file:
            return file.read(1 << 20)


@dataclass(frozen=True)
class Workspaces:
    """The folder of all of them."""

    data_path: Path

    @property
    def root(self) -> Path:
        """The folder that holds the workspaces and nothing else."""
        return self.data_path / PAYLOADS

    def of(self, uuid: str) -> Workspace:
        """The workspace of a payload."""
        return Workspace(self.root / uuid)

    def prepare(self) -> None:
        """Make the folder. Raises ``StartupError`` if it can't be written."""
        make_data_folder(self.data_path, self.root)

    def allow_traversal(self) -> None:
        """Let other users through to what is theirs, without showing what there is."""
        self.root.chmod(0o711)

    def locked(self) -> AbstractContextManager[None]:
        """Hold the folder for this process. Raises ``StartupError`` if another one holds it."""
        return locked(self.root, command="jo-client", data_path=self.data_path)

    def check(self) -> None:
        """Raise ``OSError`` unless the folder can be written."""
        check_writable(self.root)

    def clear(self) -> None:
        """Remove what an earlier life left: nobody knows its payloads any more.

        Raises ``StartupError`` if something can't be removed.
        """
        try:
            remove_tree(self.root, keep_top=True)
        except OSError as error:
            raise StartupError(
                f"DATA_PATH is {str(self.data_path)!r}, where files of an earlier start can't be"
                f" removed: {error}. Remove {str(self.root)!r}, or choose another"
            ) from error

    def remove(self, *uuids: str) -> None:
        """Remove everything of payloads, arrived whole or not. Gone already is no error."""
        for uuid in uuids:
            doomed = self.detach(uuid)
            if doomed is not None:
                remove_tree(doomed)

    def detach(self, uuid: str) -> Path | None:
        """Give the folder of a payload to whoever removes it; None if somebody has it already.

        Under a name of its own, so that two who remove it don't get into each other's way.
        """
        doomed = self.root / f"{uuid}.{uuid4().hex}"
        try:
            (self.root / uuid).rename(doomed)
        except FileNotFoundError:
            return None
        return doomed
