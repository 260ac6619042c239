"""Layout of the payloads' folders on disk.

::

    DATA_PATH/payloads/<uuid>/work/…             the work folder: current folder of run.sh
    DATA_PATH/payloads/<uuid>/tmp/               its TMPDIR
    DATA_PATH/payloads/<uuid>/…                  stdout.txt, stderr.txt, results.zip, selection.json

System files are stored next to the work folder, never inside it: no uploaded file can replace or
fake them. A script that has the rights of the client can; so they are opened in ways that nothing
in their place can block or divert (see ``common.storage.regular_file``).

All payloads are in the folder ``payloads``, which is emptied at each start; other content of
DATA_PATH is never removed, not even that of a server that uses the same DATA_PATH. All methods
block: call them in a thread.
"""

import logging
import os
import re
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from uuid import uuid4

from job_orchestrator.client.workspace.mounts import check_without_mounts, detach_mounts
from job_orchestrator.client.workspace.removal import remove_tree
from job_orchestrator.common.protocol.paths import parents
from job_orchestrator.common.protocol.small_files import SmallFile
from job_orchestrator.common.storage.data_folder import check_writable, locked, make_data_folder
from job_orchestrator.common.storage.durable import full_disk_as_domain_error
from job_orchestrator.common.storage.regular_file import open_regular_file

PAYLOADS = "payloads"
SCRIPT = "run.sh"
MAX_CHECKED_BYTES = 1 << 20
"""Beginning of run.sh that is checked."""

LEFTOVER = "leftover."
"""Prefix of the names of folders that can't be removed."""

_NAME = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Workspace:
    """The folders of one payload."""

    root: Path

    @cached_property
    def work(self) -> Path:
        """The folder in which run.sh runs, with its uploaded files."""
        return self.root / "work"

    @cached_property
    def scratch(self) -> Path:
        """TMPDIR of the script; not part of the results."""
        return self.root / "tmp"

    @cached_property
    def stdout(self) -> Path:
        """Standard output of run.sh."""
        return self.root / "stdout.txt"

    @cached_property
    def stderr(self) -> Path:
        """Standard error of run.sh."""
        return self.root / "stderr.txt"

    @cached_property
    def results(self) -> Path:
        """The packed results, once there are any."""
        return self.root / "results.zip"

    @cached_property
    def selection(self) -> Path:
        """The selection of the files that are packed; it does not exist if all are."""
        return self.root / "selection.json"

    def write(self, files: Sequence[SmallFile]) -> None:
        """Create the workspace with these files, whose names are checked.

        Other users have no access, as after ``complete``. Raises ``StorageFull``.
        """
        with full_disk_as_domain_error():
            os.mkdir(self.root, 0o700)  # noqa: PTH102
            os.mkdir(self.work)  # noqa: PTH102
            os.mkdir(self.scratch)  # noqa: PTH102
            made: set[str] = set()
            for file in files:
                for parent in reversed(parents(file.name)):
                    if parent not in made:
                        os.mkdir(f"{self.work}/{parent}")  # noqa: PTH102
                        made.add(parent)
                with open(f"{self.work}/{file.name}", "xb", buffering=0) as target:  # noqa: PTH123
                    target.write(file.content)

    def complete(self) -> None:
        """Turn a folder whose ``work`` has arrived completely into a workspace.

        Other users have no access, until a script runs there as another user.
        Raises ``StorageFull``.
        """
        with full_disk_as_domain_error():
            self.scratch.mkdir()
            self.root.chmod(0o700)

    def script(self) -> bytes:
        """Read run.sh, at most ``MAX_CHECKED_BYTES`` of it, for the script check."""
        with open(open_regular_file(self.work / SCRIPT), "rb") as file:  # noqa: PTH123
            return file.read(MAX_CHECKED_BYTES)


@dataclass(frozen=True)
class Workspaces:
    """The folder of all workspaces."""

    data_path: Path

    @cached_property
    def root(self) -> Path:
        """The folder that holds the workspaces and nothing else."""
        return self.data_path / PAYLOADS

    def of(self, uuid: str) -> Workspace:
        """Return the workspace of a payload."""
        return Workspace(self.root / uuid)

    def prepare(self) -> None:
        """Create the folder. Raises ``StartupError`` if it is not writable."""
        make_data_folder(self.data_path, self.root)

    def allow_traversal(self) -> None:
        """Allow other users to reach their own workspaces, but not to list all workspaces."""
        self.root.chmod(0o711)

    def locked(self) -> AbstractContextManager[None]:
        """Lock the folder for this process. Raises ``StartupError`` if another one has it."""
        return locked(self.root, command="jo-client", data_path=self.data_path)

    def check(self) -> None:
        """Raise ``OSError`` unless the folder is writable."""
        check_writable(self.root)

    def clear(self, keep: Collection[str] = ()) -> list[Path]:
        """Remove the payloads of the previous run of the process, except those in ``keep``.

        Mounts in them are detached. Returns what can't be removed nevertheless, such as folders
        with immutable files; where possible it gets another name, so that it is in nobody's way.
        """
        detach_mounts(self.root)
        left = []
        for path in tuple(self.root.iterdir()):
            if path.name in keep:
                continue
            try:
                _remove(path)
            except OSError as error:
                kept = _set_aside(path)
                left.append(kept)
                logger.warning(
                    "%s, which an earlier payload left, can't be removed: %s. Remove it as root,"
                    " after umount and chattr -R -i; jo-client tries again every hour",
                    kept,
                    error,
                )
        return left

    def remove(self, *uuids: str) -> None:
        """Remove the folders of payloads, complete or not. A missing folder is not an error."""
        for uuid in uuids:
            detached = self.detach(uuid)
            if detached is not None:
                remove_tree(detached)

    def discard(self, uuid: str) -> None:
        """Remove the folder of a payload that was not accepted, or is not run.

        What can't be removed now has no payload, and is removed as an orphaned folder later.
        """
        try:
            remove_tree(self.root / uuid)
        except FileNotFoundError:
            pass
        except OSError as error:
            logger.warning("The folder %s can't be removed yet: %s", uuid, error)

    def names(self) -> list[str]:
        """List the names of payloads that have a folder here."""
        return [path.name for path in self.root.iterdir() if _NAME.fullmatch(path.name)]

    def detach(self, uuid: str) -> Path | None:
        """Rename the folder of a payload for its removal; return None if it does not exist.

        The name is unique, so that concurrent removals of a payload do not interfere.
        """
        detached = self.root / f"{uuid}.{uuid4().hex}"
        try:
            (self.root / uuid).rename(detached)
        except FileNotFoundError:
            return None
        return detached


def _remove(path: Path) -> None:
    if path.is_symlink() or not path.is_dir():
        path.unlink()
        return
    check_without_mounts(path)
    remove_tree(path)


def _set_aside(path: Path) -> Path:
    """Rename a folder that can't be removed; return its name, which may be the old one."""
    aside = path.with_name(f"{LEFTOVER}{uuid4().hex}")
    if path.name.startswith(LEFTOVER):
        return path
    try:
        return path.rename(aside)
    except OSError:
        return path
