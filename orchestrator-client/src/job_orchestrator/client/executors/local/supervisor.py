"""Starts scripts, collects their exit status, and ends everything that they started."""

import asyncio
import contextlib
import logging
import os
import threading
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import psutil

from job_orchestrator.client.errors import StillRunning
from job_orchestrator.client.executors.local import processes
from job_orchestrator.client.executors.local.cgroups.payload_cgroups import PayloadCgroup
from job_orchestrator.client.executors.local.spawner import ExecutionSlot, Process, Spawner
from job_orchestrator.client.workspace.layout import Workspace
from job_orchestrator.common.runtime.clock import steady_time
from job_orchestrator.common.runtime.threads import in_thread
from job_orchestrator.common.storage.regular_file import create_file, opened_folder

logger = logging.getLogger(__name__)

POLL_S = 0.02
KILL_TIMEOUT_S = 10.0
"""Seconds after KILL for a process to disappear: it may hang in the kernel."""


@dataclass(frozen=True, eq=False)
class Script:
    """A script that was started.

    ``exit_descriptor`` is a pidfd, which becomes readable when the script ends.
    """

    process: Process
    workspace: Workspace
    slot: ExecutionSlot
    started_at: float
    exit_descriptor: int
    ending: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def pid(self) -> int:
        """Pid of the shell of run.sh, which is also the id of its session and process group."""
        return self.process.pid


class Collected(NamedTuple):
    """Exit of a script: code (negative: signal), limit reached, and whether processes are left."""

    code: int
    limit_reached: str
    leftovers: bool


@dataclass(eq=False)
class _Orphans:
    """Orphans of a script that is being ended. ``reaped``: some have ended since the last check."""

    script_pid: int
    reaped: bool = False


class Supervisor:
    """Supervisor of the running scripts and of the processes that they start.

    Only processes of scripts are ended. Other children of this process are left alone as long as
    they stay in its session; see ``processes``.
    """

    def __init__(self, folder: Path, spawner: Spawner) -> None:
        """Supervise the scripts of the workspaces in ``folder``."""
        self._folder = folder
        self._spawner = spawner
        self._script_pids: set[int] = set()
        self._ending_orphans: set[_Orphans] = set()
        # Held from the start of a script until its pid is recorded, and while a script is reaped.
        # Without it, a comparison of children with scripts could take a script for an orphan.
        self._lock = threading.Lock()
        processes.become_subreaper()

    @property
    def is_short(self) -> bool:
        """True if ``start`` and ``collect`` take less time than a hop to a thread."""
        return self._spawner.is_short

    def start(self, workspace: Workspace) -> Script:
        """Start a script. Raises ``OSError`` (EAGAIN: the limit of processes is reached).

        Standard output and error go to files, never to pipes: a background process that keeps a
        pipe open would make the script appear unfinished, and after a crash of jo-client the pipe
        would have no reader.
        """
        slot = self._spawner.acquire_slot(workspace)
        try:
            return self._start_in(slot, workspace)
        except BaseException:
            self._spawner.release_slot(slot)
            raise

    def collect(self, script: Script) -> Collected:
        """Take the exit status of a script that has ended; release its slot if nothing is left.

        The kernel makes orphans of the script children of this process at the moment at which the
        script ends. Short, if ``is_short``.
        """
        code = self._wait(script.process)
        cgroup = script.slot.cgroup
        limit_reached = cgroup.limit_reached() if cgroup is not None else ""
        emptied = cgroup is None or cgroup.remove_if_empty()
        leftovers = not emptied or bool(self._adopted())
        if not leftovers:
            self._spawner.release_slot(script.slot)
        return Collected(code, limit_reached, leftovers)

    def release(self, script: Script) -> None:
        """Release the slot of a script of which nothing runs any more. Blocks."""
        self._spawner.release_slot(script.slot)

    def reap(self) -> None:
        """Take the exit status of adopted orphans that have ended. Blocks."""
        sessions = processes.reap(self._adopted())
        with self._lock:
            for orphans in tuple(self._ending_orphans):
                orphans.reaped |= orphans.script_pid in sessions

    async def end(self, script: Script, grace_s: float) -> None:
        """End and reap all processes of a script: TERM, then KILL after the grace time.

        Raises ``StillRunning``.
        """
        # One call at a time: of two, one could reap an orphan whose end the other waits for.
        async with script.ending:
            await self._end_one(script, grace_s)

    async def end_all(self) -> None:
        """End all processes of any workspace in the folder, and remove what they left elsewhere.

        Raises ``StillRunning``.
        """
        if self._spawner.cgroups is not None:
            await in_thread(self._spawner.cgroups.clear)
        left = await in_thread(self._all_left)
        if left:
            logger.warning("Ending %d processes that belong to no payload any more", len(left))
            termination = processes.Termination(self._all_left)
            await self._terminate(termination, 0.0, str(self._folder))
        await in_thread(self._spawner.remove_all_leftovers)

    async def _end_one(self, script: Script, grace_s: float) -> None:
        find = partial(
            processes.of_payload, script.workspace.root, script.pid, self._running_script_pids
        )
        # The sandbox ends with its first process, which would leave the script no grace time.
        spared_pid = script.pid if self._spawner.sandbox is not None else 0
        orphans = _Orphans(script.pid)
        cgroup = script.slot.cgroup
        if cgroup is None:
            termination = processes.Termination(
                find,
                kill_all=partial(processes.kill_process_groups, script.pid),
                may_have_missed=partial(self._were_reaped, orphans),
                spared_pid=spared_pid,
            )
        else:
            termination = processes.Termination(
                partial(_in_cgroup_or, cgroup, find),
                kill_all=cgroup.main.kill,
                may_have_missed=lambda: bool(cgroup.main.pids()),
                spared_pid=spared_pid,
            )
        self._ending_orphans.add(orphans)
        try:
            await self._terminate(termination, grace_s, script.workspace.root.name)
        finally:
            self._ending_orphans.discard(orphans)

    async def _terminate(
        self, termination: processes.Termination, grace_s: float, name: str
    ) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        while await in_thread(termination.run_round, kill=loop.time() >= started + grace_s):
            if loop.time() > started + grace_s + KILL_TIMEOUT_S:
                raise StillRunning(f"Processes of {name} could not be ended")
            await asyncio.sleep(POLL_S)
        await in_thread(self.reap)

    def _start_in(self, slot: ExecutionSlot, workspace: Workspace) -> Script:
        started_at = steady_time()
        flags = os.O_WRONLY | os.O_APPEND
        with opened_folder(workspace.root) as folder, contextlib.ExitStack() as opened:
            outputs = []
            for path in (workspace.stdout, workspace.stderr):
                outputs.append(create_file(path.name, folder, flags))
                opened.callback(os.close, outputs[-1])
            stdout, stderr = outputs
            with self._lock:
                process = self._spawner.start(workspace, slot, stdout, stderr)
                self._script_pids.add(process.pid)
        try:
            exit_descriptor = os.pidfd_open(process.pid)
        except OSError:  # too many open files
            process.kill()
            self._wait(process)
            raise
        return Script(process, workspace, slot, started_at, exit_descriptor)

    def _wait(self, process: Process) -> int:
        with self._lock:
            code = process.wait()
            self._script_pids.discard(process.pid)
        return code

    def _were_reaped(self, orphans: _Orphans) -> bool:
        """Return whether orphans have ended since the last call.

        If so, they may have forked a process that the last search did not find.
        """
        self.reap()
        with self._lock:
            reaped, orphans.reaped = orphans.reaped, False
        return reaped

    def _all_left(self) -> list[psutil.Process]:
        """Find the processes of all payloads, by their mark or by users that only payloads have."""
        uids = self._spawner.exclusive_uids
        found = processes.of_data_path(self._folder)
        return found + (processes.of_users(uids) if uids else [])

    def _adopted(self) -> set[int]:
        # In this order: a script that starts in between is not taken for an orphan.
        children = processes.possible_orphans()
        return children - self._running_script_pids()

    def _running_script_pids(self) -> frozenset[int]:
        with self._lock:
            return frozenset(self._script_pids)


def _in_cgroup_or(cgroup: PayloadCgroup, find: processes.Find) -> list[psutil.Process]:
    """Find the processes of a cgroup; if it is empty, those that left it, as root's scripts can."""
    return processes.living(cgroup.main.pids()) or find()
