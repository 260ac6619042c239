"""Finding and ending every process of a payload, escaped ones included.

A script's children may leave its session (setsid), ignore hang-ups (nohup) or be orphaned by a
double fork. Three things hold them together all the same:

- the client is a *child subreaper*: orphans of its descendants become its own children, so that
  walking down from the client meets every one of them;
- each starts with an environment that names the payload's workspace, as the kernel still shows in
  ``/proc/<pid>/environ`` whatever the process does with its own copy;
- what a marked process starts is its child until the parent ends.

All functions but ``become_subreaper`` block: call them in a thread. A process is only ever
signalled through ``psutil.Process``, which compares its start time first: a pid that was reused in
the meantime is never hit.
"""

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil

MARK = "JO_WORKSPACE"
"""The variable that names a payload's workspace to whoever looks for its processes."""

_PR_SET_CHILD_SUBREAPER = 36
_POLL_S = 0.02


def become_subreaper() -> None:
    """Make orphaned descendants children of this process instead of init's."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")


def direct_children() -> set[int]:
    """Pids of this process's children, zombies included; cheap, unlike a walk through /proc."""
    children: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        # A thread may end while we look.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            children.update(int(pid) for pid in (task / "children").read_text().split())
    return children


def reap(pids: Iterable[int]) -> None:
    """Take the exit status of those of ``pids`` (adopted children) that have ended."""
    for pid in pids:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def of_workspace(root: Path) -> list[psutil.Process]:
    """The living processes of a workspace, among the descendants of this process."""
    return _marked(psutil.Process().children(recursive=True), lambda mark: mark == str(root))


def of_data_path(data_path: Path) -> list[psutil.Process]:
    """The living processes of any workspace below ``data_path``, on the whole machine."""
    prefix = f"{data_path}/"
    return _marked(psutil.process_iter(), lambda mark: mark.startswith(prefix))


def end_all(
    find: Callable[[], list[psutil.Process]], *, grace_s: float, timeout_s: float = 10.0
) -> bool:
    """TERM what ``find`` finds, KILL what is left after ``grace_s``, until it finds nothing.

    Looks again after each round: a process may fork while it is being ended. Returns False if
    something is left after ``timeout_s`` beyond the grace (a process stuck in the kernel).
    """
    started = time.monotonic()
    terminated: set[tuple[int, float]] = set()
    while found := find():
        elapsed = time.monotonic() - started
        if elapsed > grace_s + timeout_s:
            return False
        for process in found:
            identity = (process.pid, process.create_time())
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                if elapsed >= grace_s:
                    process.send_signal(signal.SIGKILL)
                elif identity not in terminated:
                    terminated.add(identity)
                    process.send_signal(signal.SIGTERM)
                    # A stopped process would sleep through its grace.
                    process.send_signal(signal.SIGCONT)
        # Not psutil.wait_procs: it would take the exit status that asyncio waits for.
        time.sleep(_POLL_S)
    return True


def _marked(
    candidates: Iterable[psutil.Process], wanted: Callable[[str], bool]
) -> list[psutil.Process]:
    """Candidates that carry a wanted mark, and their descendants; without zombies."""
    found: dict[int, psutil.Process] = {}
    for process in candidates:
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid not in found and wanted(process.environ().get(MARK, "")):
                found[process.pid] = process
                for child in process.children(recursive=True):
                    found[child.pid] = child
    return [process for process in found.values() if _lives(process)]


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False
