"""One cgroup, from its making to its end.

A process can't leave it, whatever it forks or clears, unless it may write to the tree of cgroups.
All of it blocks: call it in a thread.
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
_STEP_S = 0.002


@contextlib.contextmanager
def _unless_gone() -> Iterator[None]:
    """Pass over a group that is gone, and with it all that was in it.

    ENODEV: it was removed while a file of it was open.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENODEV):
            raise


@dataclass(frozen=True)
class Group:
    """A folder in a tree of cgroups."""

    folder: Path
    version: int

    def add(self, pid: int) -> None:
        """Move a process in; what it forks from then on is born in here. Raises ``OSError``."""
        (self.folder / "cgroup.procs").write_text(str(pid))

    def pids(self) -> list[int]:
        """The processes in here and in groups below."""
        found: list[int] = []
        for at, _, _ in os.walk(self.folder):
            with contextlib.suppress(OSError):
                found += map(int, (Path(at) / "cgroup.procs").read_text().split())
        return found

    def kill(self) -> None:
        """KILL all that is in here. What is being forked meanwhile dies too.

        Kernels before 5.14 can't do that in one step: all is frozen first, so that it can't fork.
        """
        with _unless_gone():
            at_once = self.folder / "cgroup.kill"
            if at_once.exists():
                at_once.write_text("1")
                return
            self._freeze()
            try:
                for pid in self.pids():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            finally:
                self._thaw()

    def remove(self) -> bool:
        """Remove it with the groups below; False if something runs in there."""
        try:
            self.folder.rmdir()
        except FileNotFoundError:
            return True
        except OSError:
            for at, _, _ in os.walk(self.folder, topdown=False):
                with contextlib.suppress(OSError):
                    Path(at).rmdir()
            return not self.folder.exists()
        return True

    def _freeze(self) -> None:
        """Stop all in here, and wait until it has stopped, but not for ever."""
        state, word, told = self._freezer()
        if not state.exists():
            return
        state.write_text(word)
        until = time.monotonic() + FREEZE_TIMEOUT_S
        while told not in state.parent.joinpath(self._told_in()).read_text().split("\n"):
            if time.monotonic() > until:
                return
            time.sleep(_STEP_S)

    def _thaw(self) -> None:
        state, _, _ = self._freezer()
        with _unless_gone():
            if state.exists():
                state.write_text("0" if self.version == 2 else "THAWED")

    def _freezer(self) -> tuple[Path, str, str]:
        """The file that freezes, what is written there, and what it says when it is done."""
        if self.version == 2:
            return self.folder / "cgroup.freeze", "1", "frozen 1"
        return self.folder / "freezer.state", "FROZEN", "FROZEN"

    def _told_in(self) -> str:
        return "cgroup.events" if self.version == 2 else "freezer.state"
