"""Finds and ends every process of a payload, including processes that escaped from their script.

A child of a script may leave its session (setsid), ignore hang-ups (nohup), be orphaned by a double
fork, or clear its environment (env -i). Three facts connect it with its payload nevertheless:

- The client is a *child subreaper*: orphans of its descendants become its own children, so that a
  walk down the process tree from the client meets every one of them.
- Each process starts with an environment that names the workspace of the payload. The kernel shows
  this environment in ``/proc/<pid>/environ``, however the process changes its own copy.
- Each script begins a session, and no process can join a session from outside. Therefore a child of
  the client that is in another session than the client, names no workspace and is not a script, has
  escaped from a script. Processes that the client itself started are in its session, and are never
  touched.

All functions except ``become_subreaper`` block: call them in a thread. A process found by its pid
is only signalled through ``psutil.Process``, which compares the start time first: a process that
reuses the pid is never hit.
"""

import contextlib
import ctypes
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Set
from pathlib import Path
from typing import Protocol

import psutil

WORKSPACE_VARIABLE = "JO_WORKSPACE"
"""Environment variable that marks a process as one of a payload: it names the workspace."""


class Waitable(Protocol):
    """A child process."""

    @property
    def pid(self) -> int:
        """Process id."""

    def wait(self) -> int:
        """Take the exit status."""


Find = Callable[[], list[psutil.Process]]
"""Search for the processes to end; each call searches again."""

CHILDREN_OF_MAIN_THREAD = Path(f"/proc/self/task/{os.getpid()}/children")
PR_SET_DUMPABLE = 4
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38


class ScriptPids:
    """Pids of the running scripts. Thread-safe.

    A search for orphans compares children of this process with these pids. A script that has been
    forked, and whose pid is not recorded yet, must not be taken for an orphan.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._pids: set[int] = set()
        self._starts: set[object] = set()

    @contextlib.contextmanager
    def starting(self) -> Iterator[Callable[[int], None]]:
        """Start a script in the block, and record its pid with the function."""
        start = object()
        with self._changed:
            self._starts.add(start)
        try:
            yield self._add
        finally:
            with self._changed:
                self._starts.discard(start)
                self._changed.notify_all()

    def wait_for(self, script: Waitable) -> int:
        """Take the exit status of a script that has ended, and forget its pid."""
        with self._changed:
            code = script.wait()
            self._pids.discard(script.pid)
        return code

    def recorded(self) -> frozenset[int]:
        """Return the recorded pids."""
        with self._changed:
            return frozenset(self._pids)

    def all(self) -> frozenset[int]:
        """Return the pids of all scripts that were forked before the call.

        Blocks until the starts that are under way have been recorded.
        """
        with self._changed:
            under_way = frozenset(self._starts)
            self._changed.wait_for(lambda: under_way.isdisjoint(self._starts))
            return frozenset(self._pids)

    def _add(self, pid: int) -> None:
        with self._changed:
            self._pids.add(pid)


def become_subreaper() -> None:
    """Make orphaned descendants children of this process instead of init's."""
    set_attribute(PR_SET_CHILD_SUBREAPER, 1)


def become_unreadable() -> None:
    """Keep scripts, which run as the same user, from reading this process's environment and memory.

    Child processes inherit this only until they execute a program.
    """
    set_attribute(PR_SET_DUMPABLE, 0)


def forbid_new_privileges() -> None:
    """Prevent programs that this thread starts from gaining rights through set-id programs.

    This cannot be undone.
    """
    set_attribute(PR_SET_NO_NEW_PRIVS, 1)


def set_attribute(option: int, value: int) -> None:
    """Set an attribute of this process, or thread; see prctl(2). Raises ``OSError``."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}, {value}) failed")


def possible_orphans() -> set[int]:
    """Return the pids of children that may be adopted orphans, zombies included.

    The kernel gives orphans to the first living thread, which is the main thread; children that
    another thread started are in the list of that thread (find_new_reaper in Linux'
    kernel/exit.c).
    """
    try:
        # Unbuffered and as bytes: this is read at the end of each script.
        with CHILDREN_OF_MAIN_THREAD.open("rb", buffering=0) as file:
            children = {int(pid) for pid in file.readall().split()}
    except FileNotFoundError:  # a kernel without CONFIG_PROC_CHILDREN
        children = {child.pid for child in psutil.Process().children()}
    return {pid for pid in children if _is_in_another_session(pid)}


def reap(pids: Iterable[int]) -> set[int]:
    """Take the exit status of those of ``pids`` (adopted children) that have ended.

    Returns the sessions of the reaped processes.
    """
    sessions = set()
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            session = os.getsid(pid)
            if os.waitpid(pid, os.WNOHANG) != (0, 0):
                sessions.add(session)
    return sessions


def of_payload(
    root: Path, script_pid: int, running_script_pids: Callable[[], Set[int]]
) -> list[psutil.Process]:
    """Find the living processes of a payload, by the ``root`` of its workspace and its script.

    Orphans that name no workspace and belong to no running script are included, whichever payload
    started them: that payload has ended, so nothing else would search for them.
    """
    family = psutil.Process().children(recursive=True)
    # Read after the search: every script in ``family`` has been recorded by then.
    others = running_script_pids() - {script_pid}
    found: dict[int, psutil.Process] = {}
    for process in family:  # parents come before their children
        with contextlib.suppress(psutil.Error, OSError):
            workspace, parent = _workspace_of(process), process.ppid()
            if process.pid in others:
                continue
            if workspace:
                ours = workspace == str(root)
            elif parent == os.getpid():
                session = os.getsid(process.pid)
                ours = process.pid == script_pid or session not in {os.getsid(0), *others}
            else:
                ours = parent in found
            if ours:
                found[process.pid] = process
    return [process for process in found.values() if _is_alive(process)]


def of_data_path(data_path: Path) -> list[psutil.Process]:
    """Find the living processes of all workspaces below ``data_path``, on the whole machine."""
    prefix = f"{data_path}/"
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid not in found and _workspace_of(process).startswith(prefix):
                found[process.pid] = process
                found.update((child.pid, child) for child in process.children(recursive=True))
    return [process for process in found.values() if _is_alive(process)]


def of_users(uids: Set[int]) -> list[psutil.Process]:
    """Find the living processes of users, on the whole machine."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.uids().real in uids:
                found.append(process)
    return [process for process in found if _is_alive(process)]


def living(pids: Iterable[int]) -> list[psutil.Process]:
    """Return those of ``pids`` that are alive."""
    found = []
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            found.append(psutil.Process(pid))
    return [process for process in found if _is_alive(process)]


def kill_process_groups(script_pid: int) -> None:
    """Send KILL to the process groups of a script's orphans.

    A chain of processes, each of which forks the next one and ends, is faster than a search for its
    current member. A signal to a process group reaches all members in one step, including those
    that are being forked. An orphan that has ended keeps its ids until it is reaped, so no other
    process can have them.
    """
    for pid in possible_orphans():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getsid(pid) == script_pid:
                os.killpg(os.getpgid(pid), signal.SIGKILL)


class Termination:
    """Ends processes in rounds, until none is found.

    A process may fork while it is being ended, so each round searches again with ``find``.
    ``kill_all`` kills in one step what it can. ``may_have_missed`` returns whether ``find`` may
    have missed a process, so that another round is necessary. The process ``spared_pid`` gets no
    TERM.
    """

    def __init__(
        self,
        find: Find,
        *,
        kill_all: Callable[[], None] = lambda: None,
        may_have_missed: Callable[[], bool] = lambda: False,
        spared_pid: int = 0,
    ) -> None:
        self._find = find
        self._kill_all = kill_all
        self._may_have_missed = may_have_missed
        self._spared_pid = spared_pid
        self._terminated: set[psutil.Process] = set()

    def run_round(self, *, kill: bool) -> bool:
        """Send KILL, or TERM once to each process. Returns whether another round is necessary."""
        if kill:
            self._kill_all()
        # Search twice: a parent may end before its entry in /proc is read, and the entry of a child
        # that it has just forked may come earlier in the list than that of the parent.
        found = self._find() or self._find()
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                if kill:
                    process.send_signal(signal.SIGKILL)
                elif process.pid != self._spared_pid and process not in self._terminated:
                    # Equality of psutil.Process includes the start time.
                    self._terminated.add(process)
                    process.send_signal(signal.SIGTERM)
                    # A stopped process would not handle TERM within its grace time.
                    process.send_signal(signal.SIGCONT)
        return self._may_have_missed() or bool(found)


def _is_in_another_session(pid: int) -> bool:
    try:
        return os.getsid(pid) != os.getsid(0)
    except ProcessLookupError:
        return False


def _workspace_of(process: psutil.Process) -> str:
    try:
        return str(process.environ().get(WORKSPACE_VARIABLE, ""))
    except psutil.AccessDenied:  # a set-id program; treated like a cleared environment
        return ""


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False
