"""Finding and ending every process of a payload, escaped ones included.

A script's children may leave its session (setsid), ignore hang-ups (nohup), be orphaned by a double
fork, or clear their environment (env -i). Three things hold them together all the same:

- the client is a *child subreaper*: orphans of its descendants become its own children, so that
  walking down from the client meets every one of them;
- each starts with an environment that names the payload's workspace, as the kernel still shows in
  ``/proc/<pid>/environ`` whatever the process does with its own copy;
- each script begins a session, and a session can't be joined: a child of the client that is in
  another session than the client's own, has no name and no script behind it, has escaped from one.
  Whatever else the client's process has started, and left in its session, is never touched.

All of it but ``become_subreaper`` blocks: call it in a thread. A process is only ever
signalled through ``psutil.Process``, which compares its start time first: a pid that was reused in
the meantime is never hit.
"""

import contextlib
import ctypes
import os
import signal
from collections.abc import Callable, Iterable, Set
from pathlib import Path

import psutil

MARK = "JO_WORKSPACE"
"""The variable that names a payload's workspace to whoever looks for its processes."""

Find = Callable[[], list[psutil.Process]]
"""Looks for the processes to end, anew with each call."""

CHILDREN_OF_MAIN_THREAD = Path(f"/proc/self/task/{os.getpid()}/children")
_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38


def become_subreaper() -> None:
    """Make orphaned descendants children of this process instead of init's."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def become_unreadable() -> None:
    """Keep scripts, which run as the same user, from reading this process's environment and memory.

    Of the processes that it starts only those are concerned that don't exec a program.
    """
    _prctl(_PR_SET_DUMPABLE, 0)


def forbid_new_privileges() -> None:
    """Keep what this thread starts from gaining rights by set-id programs, for ever."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def _prctl(what: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(what, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({what}, {value}) failed")


def possible_orphans() -> set[int]:
    """Pids of this process's children that may be orphans which it adopted, zombies included.

    The kernel gives orphans to the first thread that lives, which is the main one; what another
    thread has started is in a list of its own (find_new_reaper in Linux' kernel/exit.c).
    """
    try:
        children = {int(pid) for pid in CHILDREN_OF_MAIN_THREAD.read_text().split()}
    except FileNotFoundError:  # a kernel without CONFIG_PROC_CHILDREN
        children = {child.pid for child in psutil.Process().children()}
    return {pid for pid in children if _left_our_session(pid)}


def reap(pids: Iterable[int]) -> set[int]:
    """Take the exit status of those of ``pids`` (adopted children) that have ended.

    Returns the sessions that those belonged to.
    """
    sessions = set()
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            session = os.getsid(pid)
            if os.waitpid(pid, os.WNOHANG) != (0, 0):
                sessions.add(session)
    return sessions


def of_payload(
    root: Path, script: int, running_scripts: Callable[[], Set[int]]
) -> list[psutil.Process]:
    """The living processes of a payload: its workspace's ``root``, the pid of its run.sh.

    Nameless orphans that belong to no running script are among them, whosever they were: the
    payload that they escaped from has ended, and nobody else will look for them.
    """
    family = psutil.Process().children(recursive=True)
    # Asked after the look around: whatever was met there has been noted by now if it is a script.
    others = running_scripts() - {script}
    found: dict[int, psutil.Process] = {}
    for process in family:  # parents come before their children
        with contextlib.suppress(psutil.Error, OSError):
            mark, parent = _mark(process), process.ppid()
            if process.pid in others:
                continue
            if mark:
                ours = mark == str(root)
            elif parent == os.getpid():
                session = os.getsid(process.pid)
                ours = process.pid == script or session not in {os.getsid(0), *others}
            else:
                ours = parent in found
            if ours:
                found[process.pid] = process
    return [process for process in found.values() if _lives(process)]


def of_data_path(data_path: Path) -> list[psutil.Process]:
    """The living processes of any workspace below ``data_path``, on the whole machine."""
    prefix = f"{data_path}/"
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid not in found and _mark(process).startswith(prefix):
                found[process.pid] = process
                found.update((child.pid, child) for child in process.children(recursive=True))
    return [process for process in found.values() if _lives(process)]


def living(pids: Iterable[int]) -> list[psutil.Process]:
    """Those of ``pids`` that live."""
    found = []
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            found.append(psutil.Process(pid))
    return [process for process in found if _lives(process)]


def kill_process_groups(script: int) -> None:
    """KILL the process groups of a script's orphans.

    A chain of processes that fork and end is faster than whoever looks for its present one. A
    signal to a process group meets all of it at once, and what it forks in that moment. An orphan
    that has ended keeps its ids until it is reaped, so that they are nobody else's.
    """
    for pid in possible_orphans():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getsid(pid) == script:
                os.killpg(os.getpgid(pid), signal.SIGKILL)


def of_users(uids: Set[int]) -> list[psutil.Process]:
    """The living processes of users, on the whole machine."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.uids().real in uids:
                found.append(process)
    return [process for process in found if _lives(process)]


class Ending:
    """Ends what ``find`` finds, in rounds, until it finds nothing.

    A process may fork while it is being ended, so each round looks anew. ``kill_all`` kills what it
    can in one step; ``look_again`` knows of something that ``find`` may have missed. The
    process ``spared`` gets no TERM.
    """

    def __init__(
        self,
        find: Find,
        kill_all: Callable[[], None] = lambda: None,
        look_again: Callable[[], bool] = lambda: False,
        spared: int = 0,
    ) -> None:
        self._find = find
        self._kill_all = kill_all
        self._look_again = look_again
        self._spared = spared
        self._terminated: set[psutil.Process] = set()

    def round(self, *, kill: bool) -> bool:
        """Send TERM (once to each), or KILL; whether anything was there."""
        # Twice, because a parent may be gone before its line in /proc is read, while the line of
        # the child that it has just forked was before it.
        if kill:
            self._kill_all()
        found = self._find() or self._find()
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                if kill:
                    process.send_signal(signal.SIGKILL)
                elif (
                    process.pid != self._spared and process not in self._terminated
                ):  # compares the start time too
                    self._terminated.add(process)
                    process.send_signal(signal.SIGTERM)
                    # A stopped process would sleep through its grace.
                    process.send_signal(signal.SIGCONT)
        return self._look_again() or bool(found)


def _left_our_session(pid: int) -> bool:
    try:
        return os.getsid(pid) != os.getsid(0)
    except ProcessLookupError:
        return False


def _mark(process: psutil.Process) -> str:
    try:
        return str(process.environ().get(MARK, ""))
    except psutil.AccessDenied:  # a set-id program: as good as a cleared environment
        return ""


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False
