"""One cgroup.

A process cannot leave its cgroup, even if it forks or clears its environment, unless it may write
to the file system of cgroups. All methods block: call them in a thread.
"""

import contextlib
import errno
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FREEZE_TIMEOUT_S = 1.0
_POLL_S = 0.002


@contextlib.contextmanager
def _unless_removed() -> Iterator[None]:
    """Ignore the errors that mean that a cgroup was removed, with everything in it.

    ENODEV: the cgroup was removed while one of its files was open.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENODEV):
            raise


@dataclass(frozen=True)
class Cgroup:
    """A cgroup: a folder in a hierarchy of ``version`` 1 or 2."""

    folder: Path
    version: int

    def add(self, pid: int) -> None:
        """Move a process in; its children then start in this cgroup too. Raises ``OSError``."""
        (self.folder / "cgroup.procs").write_text(str(pid))

    def pids(self) -> list[int]:
        """Return the processes in this cgroup and in those below it."""
        found: list[int] = []
        for folder, _, _ in os.walk(self.folder):
            with contextlib.suppress(OSError):
                found += map(int, (Path(folder) / "cgroup.procs").read_text().split())
        return found

    def kill(self) -> None:
        """Send KILL to all processes, including those that are being forked at the time.

        Kernels before 5.14 cannot do that in one step. There the cgroup is frozen first, so that no
        process can fork.
        """
        with _unless_removed():
            kill_file = self.folder / "cgroup.kill"
            if kill_file.exists():
                kill_file.write_text("1")
                return
            self._freeze()
            try:
                for pid in self.pids():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            finally:
                self._thaw()

    def remove_if_empty(self) -> bool:
        """Remove the cgroup; False if processes run there, or if there are cgroups below it."""
        try:
            self.folder.rmdir()
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True

    def remove(self) -> bool:
        """Remove the cgroup and those below it; False if processes run there."""
        if self.remove_if_empty():
            return True
        for folder, _, _ in os.walk(self.folder, topdown=False):
            with contextlib.suppress(OSError):
                Path(folder).rmdir()
        return not self.folder.exists()

    def _freeze(self) -> None:
        """Freeze all processes, and wait at most ``FREEZE_TIMEOUT_S`` until they are frozen."""
        freezer = self._freezer
        if not freezer.control.exists():
            return
        freezer.control.write_text(freezer.freeze)
        deadline = time.monotonic() + FREEZE_TIMEOUT_S
        while freezer.frozen not in freezer.status.read_text().split("\n"):
            if time.monotonic() > deadline:
                return
            time.sleep(_POLL_S)

    def _thaw(self) -> None:
        with _unless_removed():
            if self._freezer.control.exists():
                self._freezer.control.write_text(self._freezer.thaw)

    @property
    def _freezer(self) -> "_Freezer":
        if self.version == 2:
            control, status = self.folder / "cgroup.freeze", self.folder / "cgroup.events"
            return _Freezer(control, "1", "0", status, "frozen 1")
        control = self.folder / "freezer.state"
        return _Freezer(control, "FROZEN", "THAWED", control, "FROZEN")


@dataclass(frozen=True)
class _Freezer:
    """Files and words that freeze a cgroup, and the line in ``status`` once it is frozen."""

    control: Path
    freeze: str
    thaw: str
    status: Path
    frozen: str
