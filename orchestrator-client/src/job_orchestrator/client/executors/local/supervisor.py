"""Starts scripts, collects their exit status, and ends everything that they started."""

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import Callable, Set
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple, ParamSpec, TypeVar

import psutil

from job_orchestrator.client.errors import StillRunning
from job_orchestrator.client.executors.local import processes
from job_orchestrator.client.executors.local.cgroups.payload_cgroups import PayloadCgroup
from job_orchestrator.client.executors.local.child import Program
from job_orchestrator.client.executors.local.spawner import ExecutionSlot, Process, Spawner
from job_orchestrator.client.model import NO_SHARE, Share
from job_orchestrator.client.workspace.layout import Workspace
from job_orchestrator.common.messages.arrays import ArrayTask
from job_orchestrator.common.runtime.clock import steady_time
from job_orchestrator.common.runtime.short_work import ShortWork
from job_orchestrator.common.runtime.threads import in_thread
from job_orchestrator.common.storage.regular_file import create_file, opened_folder

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

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
    possible_orphans: Set[int]


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
        self._scripts = processes.ScriptPids()
        self._ending_orphans: set[_Orphans] = set()
        self._lock = threading.Lock()
        self._short = ShortWork()
        processes.become_subreaper()

    async def start(
        self, workspace: Workspace, share: Share = NO_SHARE, task: ArrayTask | None = None
    ) -> Script:
        """Start a script. Raises ``OSError`` (EAGAIN: the limit of processes is reached).

        Standard output and error go to files, never to pipes: a background process that keeps a
        pipe open would make the script appear unfinished, and after a crash of jo-client the pipe
        would have no reader.
        """
        slot, program = await self._run_short(self._prepare, workspace, share, task)
        started_at = steady_time()
        try:
            try:
                with self._scripts.starting() as record:
                    process = await self._spawner.start(program, slot)
                    record(process.pid)
            finally:
                os.close(program.stdout)
                os.close(program.stderr)
            exit_descriptor = await self._open_exit_descriptor(process)
        except BaseException:
            await in_thread(self._spawner.release_slot, slot)
            raise
        return Script(process, workspace, slot, started_at, exit_descriptor)

    async def collect(self, script: Script) -> Collected:
        """Take the exit status of a script that has ended; release its slot if nothing is left."""
        collected = await self._run_short(self._collect, script)
        if not collected.leftovers and collected.possible_orphans:
            # They may have ended, or be scripts whose start is under way, for which only a thread
            # can wait.
            if await in_thread(self._orphans_left):
                return collected._replace(leftovers=True)
            await self.release(script)
        return collected

    async def release(self, script: Script) -> None:
        """Release the slot of a script of which nothing runs any more."""
        await in_thread(self._spawner.release_slot, script.slot)

    def _collect(self, script: Script) -> Collected:
        """See ``collect``. Releases the slot only if there are no possible orphans either.

        The kernel makes orphans of the script children of this process at the moment at which the
        script ends.
        """
        code = self._scripts.wait_for(script.process)
        cgroup = script.slot.cgroup
        limit_reached = cgroup.limit_reached() if cgroup is not None else ""
        leftovers = cgroup is not None and not cgroup.remove_if_empty()
        # In this order: a script that starts in between is not taken for an orphan.
        children = processes.possible_orphans()
        orphans = children - self._scripts.recorded()
        if not (leftovers or orphans):
            self._spawner.release_slot(script.slot)
        return Collected(code, limit_reached, leftovers, orphans)

    async def _run_short(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        if self._spawner.is_short:
            return await self._short.run(function, *args, **kwargs)
        return await in_thread(function, *args, **kwargs)

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
        find = partial(processes.of_payload, script.workspace.root, script.pid, self._scripts.all)
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
                partial(self._left_of, cgroup, find),
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

    def _prepare(
        self, workspace: Workspace, share: Share, task: ArrayTask | None
    ) -> tuple[ExecutionSlot, Program]:
        """Lease a slot, and create the files for standard output and error. Raises ``OSError``."""
        slot = self._spawner.acquire_slot(workspace, share, task)
        with contextlib.ExitStack() as undo:
            undo.callback(self._spawner.release_slot, slot)
            outputs = []
            with opened_folder(workspace.root) as folder:
                for path in (workspace.stdout, workspace.stderr):
                    flags = os.O_WRONLY | os.O_APPEND
                    outputs.append(create_file(path.name, folder, flags))
                    undo.callback(os.close, outputs[-1])
            program = self._spawner.program(workspace, slot, *outputs)
            undo.pop_all()
        return slot, program

    async def _open_exit_descriptor(self, process: Process) -> int:
        try:
            return os.pidfd_open(process.pid)
        except OSError:  # too many open files
            process.kill()
            await in_thread(self._scripts.wait_for, process)
            raise

    def _were_reaped(self, orphans: _Orphans) -> bool:
        """Return whether orphans have ended since the last call.

        If so, they may have forked a process that the last search did not find.
        """
        self.reap()
        with self._lock:
            reaped, orphans.reaped = orphans.reaped, False
        return reaped

    def _orphans_left(self) -> set[int]:
        """Reap the orphans that have ended, and return those that have not. Blocks."""
        self.reap()
        return self._adopted()

    def _left_of(self, cgroup: PayloadCgroup, find: processes.Find) -> list[psutil.Process]:
        """Find the processes of a cgroup; if it is empty, those that left it, as root can.

        Processes are searched only if there are orphans: a search reads all of the machine.
        """
        if living := processes.living(cgroup.main.pids()):
            return living
        return find() if self._orphans_left() else []

    def _all_left(self) -> list[psutil.Process]:
        """Find the processes of all payloads, by their mark or by users that only payloads have."""
        uids = self._spawner.exclusive_uids
        found = processes.of_data_path(self._folder)
        return found + (processes.of_users(uids) if uids else [])

    def _adopted(self) -> set[int]:
        # In this order: a script that starts in between is not taken for an orphan.
        children = processes.possible_orphans()
        return children - self._scripts.all()
