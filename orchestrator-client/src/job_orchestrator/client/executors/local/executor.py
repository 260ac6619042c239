"""Runs payloads as processes of this machine."""

import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import psutil

from job_orchestrator.client.errors import StillRunning
from job_orchestrator.client.executors.base import Outcome
from job_orchestrator.client.executors.local import processes
from job_orchestrator.client.executors.local.cgroups.manager import Cgroups, PayloadGroup
from job_orchestrator.client.executors.local.sandbox import Bubblewrap
from job_orchestrator.client.executors.local.spawner import Place, Process, Spawner
from job_orchestrator.client.executors.local.users import ScriptUsers
from job_orchestrator.client.workspace.deferred_removal import DeferredRemoval
from job_orchestrator.client.workspace.layout import Workspace
from job_orchestrator.common.runtime.threads import in_thread

logger = logging.getLogger(__name__)

# What a script leaves running when it ends by itself has no work to save any more.
LEFTOVER_GRACE_S = 1.0
POLL_S = 0.02
KILL_TIMEOUT_S = 10.0
"""How long after KILL something may be left: it hangs in the kernel."""


class LocalExecutor:
    """Starts ``bash run.sh`` in a session of its own, with a clean environment and no input.

    Standard output and error go to files, never to pipes: a background process that keeps a pipe
    open would make the script look unfinished, and nobody would read the pipe after a crash.

    Other children of this process are left alone as long as they stay in its session; see
    ``processes``. Scripts are not started through asyncio, whose bookkeeping of children knows no
    adopted ones.
    """

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str],
        *,
        kill_grace_s: float,
        cgroups: Cgroups | None = None,
        users: ScriptUsers | None = None,
        sandbox: Bubblewrap | None = None,
    ) -> None:
        """``folder`` is the one that holds the workspaces."""
        self._folder = folder
        self._cgroups = cgroups
        self._spawner = Spawner(environment, cgroups, users, sandbox)
        self._kill_grace_s = kill_grace_s
        self._scripts: set[int] = set()
        self._endings: set[_EndingOrphans] = set()
        # Held from the start of a script until its pid is noted, and while it is reaped: whoever
        # compares children with scripts never takes the one for an orphan.
        self._lock = threading.Lock()
        processes.become_subreaper()

    async def start(self, workspace: Workspace) -> "LocalExecution":
        """Start a payload. Raises ``OSError`` (EAGAIN: the limit of processes is reached)."""
        return await in_thread(self._start, workspace)

    async def clear(self) -> None:
        """End whatever runs in any workspace of the folder, and remove what it left elsewhere.

        Raises ``StillRunning``.
        """
        if self._cgroups is not None:
            await in_thread(self._cgroups.clear)
        left = await in_thread(self._all_left)
        if left:
            logger.warning("Ending %d processes that belong to no payload any more", len(left))
            await self._end(processes.Ending(self._all_left), 0.0, str(self._folder))
        await in_thread(self._spawner.remove_all_leftovers)

    async def reap(self) -> None:
        """Take the exit status of orphans whose script still runs: they would stay zombies."""
        await in_thread(self._reap)

    @property
    def sandboxed(self) -> bool:
        """Whether a script's process is that of its sandbox, which tells how the script ended."""
        return self._spawner.sandbox is not None

    @property
    def large_leftovers(self) -> DeferredRemoval:
        """What payloads left outside their folders, and is not removed yet."""
        return self._spawner.large_leftovers

    def leave(self, place: Place) -> None:
        """Nothing of a payload runs any more."""
        self._spawner.leave(place)

    async def end_leftovers(
        self, workspace: Workspace, script: int, place: Place, grace_s: float
    ) -> None:
        """End whatever of a payload still runs, and reap it. Raises ``StillRunning``."""
        find = partial(processes.of_payload, workspace.root, script, self._running_scripts)
        # With the process of the sandbox all in it would end at once: the script has its grace.
        spared = script if self.sandboxed else 0
        orphans = _EndingOrphans(script)
        group = place.group
        if group is None:
            ending = processes.Ending(
                find,
                partial(processes.kill_process_groups, script),
                partial(self._have_ended, orphans),
                spared=spared,
            )
        else:
            ending = processes.Ending(
                partial(_in_group_or, group, find),
                group.main.kill,
                lambda: bool(group.main.pids()),
                spared=spared,
            )
        self._endings.add(orphans)
        try:
            await self._end(ending, grace_s, workspace.root.name)
        finally:
            self._endings.discard(orphans)

    def collect(self, process: Process, place: Place) -> "Collected":
        """Take the exit status of a script that has ended; if it left nothing, leave its place.

        Orphans of the script have become children of this process the moment that it ended.
        """
        code = self._wait(process)
        limit_reached = place.group.limit_reached() if place.group is not None else ""
        emptied = place.group is None or place.group.remove()
        leftovers = not emptied or bool(self._adopted())
        if not leftovers:
            self._spawner.leave(place)
        return Collected(code, limit_reached, leftovers)

    def _wait(self, process: Process) -> int:
        with self._lock:
            code = process.wait()
            self._scripts.discard(process.pid)
        return code

    def _start(self, workspace: Workspace) -> "LocalExecution":
        place = self._spawner.take_place(workspace)
        try:
            return self._start_at(place, workspace)
        except BaseException:
            self._spawner.leave(place)
            raise

    def _start_at(self, place: Place, workspace: Workspace) -> "LocalExecution":
        started_at = time.time()
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        stdout = os.open(workspace.stdout, flags, 0o600)
        try:
            stderr = os.open(workspace.stderr, flags, 0o600)
            try:
                with self._lock:
                    process = self._spawner.start(workspace, place, stdout, stderr)
                    self._scripts.add(process.pid)
            finally:
                os.close(stderr)
        finally:
            os.close(stdout)
        try:
            exit_descriptor = os.pidfd_open(process.pid)
        except OSError:  # too many open files
            process.kill()
            self._wait(process)
            raise
        return LocalExecution(
            self,
            process,
            workspace,
            place,
            started_at=started_at,
            exit_descriptor=exit_descriptor,
            kill_grace_s=self._kill_grace_s,
        )

    async def _end(self, ending: processes.Ending, grace_s: float, what: str) -> None:
        """TERM, then KILL after the grace. Raises ``StillRunning``."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        while await in_thread(ending.round, kill=loop.time() >= started + grace_s):
            if loop.time() > started + grace_s + KILL_TIMEOUT_S:
                raise StillRunning(f"Processes of {what} resist being ended")
            await asyncio.sleep(POLL_S)
        await self.reap()

    def _reap(self) -> None:
        sessions = processes.reap(self._adopted())
        with self._lock:
            for orphans in tuple(self._endings):
                orphans.have_ended |= orphans.script in sessions

    def _have_ended(self, orphans: "_EndingOrphans") -> bool:
        """Whether any have ended since the last call.

        If so, something may have been forked where nobody looked: look again.
        """
        self._reap()
        with self._lock:
            ended, orphans.have_ended = orphans.have_ended, False
        return ended

    def _all_left(self) -> list[psutil.Process]:
        """What runs of any payload; also without its mark, where users are of payloads alone."""
        own_ids = self._spawner.own_ids
        found = processes.of_data_path(self._folder)
        return found + (processes.of_users(own_ids) if own_ids else [])

    def _adopted(self) -> set[int]:
        # In this order: a script that starts in between is no orphan.
        children = processes.possible_orphans()
        return children - self._running_scripts()

    def _running_scripts(self) -> frozenset[int]:
        with self._lock:
            return frozenset(self._scripts)


@dataclass(eq=False)
class _EndingOrphans:
    """The orphans of a script that is being ended; ``have_ended``: some, whoever reaped them."""

    script: int
    have_ended: bool = False


class Collected(NamedTuple):
    """How a script ended: exit code (negative: signal), limit that it met, and if more is left."""

    code: int
    limit_reached: str
    leftovers: bool


def _in_group_or(group: PayloadGroup, find: processes.Find) -> list[psutil.Process]:
    """What is in the group; when that is empty, what may have left it (root's scripts can)."""
    return processes.living(group.main.pids()) or find()


class LocalExecution:
    """One run of a payload as a process."""

    def __init__(
        self,
        executor: LocalExecutor,
        process: Process,
        workspace: Workspace,
        place: Place,
        *,
        started_at: float,
        exit_descriptor: int,
        kill_grace_s: float,
    ) -> None:
        self._executor = executor
        self._process = process
        self._workspace = workspace
        self._place = place
        self._ending = asyncio.Lock()
        self._started_at = started_at
        self._exit_descriptor = exit_descriptor
        self._kill_grace_s = kill_grace_s

    @property
    def pid(self) -> int:
        """The pid of run.sh's shell, which is also its session and process group."""
        return self._process.pid

    async def wait(self) -> Outcome:
        """Wait for the script itself, then end what it left behind. To be called once.

        Raises ``StillRunning``.
        """
        await _until_readable(self._exit_descriptor)
        ended_at = time.time()
        ended = await in_thread(self._executor.collect, self._process, self._place)
        if ended.leftovers:
            await self._end_tree(LEFTOVER_GRACE_S)
            await in_thread(self._executor.leave, self._place)
        number = -ended.code if ended.code < 0 else None
        if self._executor.sandboxed and ended.code - 128 in signal.valid_signals():
            number = ended.code - 128
        return Outcome(
            ended.code if number is None else 128 + number,
            number,
            self._started_at,
            ended_at,
            ended.limit_reached,
        )

    async def terminate(self) -> None:
        """TERM, then KILL after the grace, the whole tree. Raises ``StillRunning``."""
        await self._end_tree(self._kill_grace_s)

    async def _end_tree(self, grace_s: float) -> None:
        # One at a time: of two, one could take for the end what the other has just seen to.
        async with self._ending:
            await self._executor.end_leftovers(self._workspace, self.pid, self._place, grace_s)


async def _until_readable(descriptor: int) -> None:
    """Wait until ``descriptor`` has something to tell, and close it."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(descriptor, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
