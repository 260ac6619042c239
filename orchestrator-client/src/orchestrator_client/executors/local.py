"""Runs payloads as processes of this machine."""

import asyncio
import logging
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from orchestrator_client.errors import StillRunning
from orchestrator_client.executors import processes
from orchestrator_client.executors.base import Outcome
from orchestrator_client.workspace import SCRIPT, Workspace
from orchestrator_common.threads import in_thread, to_end

logger = logging.getLogger(__name__)

# What a script leaves running when it ends by itself has no work to save any more.
LEFTOVER_GRACE_S = 1.0


class LocalExecutor:
    """Starts ``bash run.sh`` in a session of its own, with a clean environment and no input.

    Standard output and error go to files, never to pipes: a background process that keeps a pipe
    open would make the script look unfinished, and nobody would read the pipe after a crash.
    """

    def __init__(
        self, data_path: Path, environment: Mapping[str, str], *, kill_grace_s: float
    ) -> None:
        self._data_path = data_path
        self._environment = environment
        self._kill_grace_s = kill_grace_s
        # Children that asyncio waits for; every other child was adopted, and is reaped here.
        self._scripts: set[int] = set()
        self._starting = 0
        processes.become_subreaper()
        if sys.version_info < (3, 12):
            # The default there needs a thread for each process; newer Pythons choose this one.
            watcher = asyncio.PidfdChildWatcher()
            watcher.attach_loop(asyncio.get_running_loop())
            asyncio.get_event_loop_policy().set_child_watcher(watcher)

    async def start(self, workspace: Workspace) -> "LocalExecution":
        """Start a payload. Raises ``OSError`` (EAGAIN: the limit of processes is reached)."""
        self._starting += 1
        try:
            process = await to_end(self._spawn(workspace))
            self._scripts.add(process.pid)
        finally:
            self._starting -= 1
        return LocalExecution(self, process, workspace, kill_grace_s=self._kill_grace_s)

    async def clear(self) -> None:
        """End what an earlier life of the client left running in its data folder."""
        left = await in_thread(processes.of_data_path, self._data_path)
        if left:
            logger.warning("Ending %d processes of an earlier life of this client", len(left))
            await in_thread(
                processes.end_all, lambda: processes.of_data_path(self._data_path), grace_s=0.0
            )

    async def _spawn(self, workspace: Workspace) -> asyncio.subprocess.Process:
        stdout, stderr = await in_thread(_open_output, workspace)
        try:
            return await asyncio.create_subprocess_exec(
                "bash",
                SCRIPT,
                cwd=workspace.work,
                env={
                    **self._environment,
                    "HOME": str(workspace.work),
                    "TMPDIR": str(workspace.scratch),
                    processes.MARK: str(workspace.root),
                },
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        finally:
            os.close(stdout)
            os.close(stderr)

    @property
    def starting(self) -> bool:
        """Whether a script is being started just now."""
        return self._starting > 0

    def ended(self, pid: int) -> None:
        """The script with this pid was waited for."""
        self._scripts.discard(pid)

    def adopted(self) -> set[int]:
        """Children that are orphans of scripts. None while a script starts: it is a child too."""
        if self._starting:
            return set()
        return processes.direct_children() - self._scripts

    async def end_leftovers(self, workspace: Workspace, grace_s: float) -> None:
        """End whatever of a payload still runs, and reap it. Raises ``StillRunning``."""
        gone = await in_thread(
            processes.end_all, lambda: processes.of_workspace(workspace.root), grace_s=grace_s
        )
        processes.reap(self.adopted())
        if not gone:
            raise StillRunning(f"Processes of {workspace.root.name} resist being ended")


class LocalExecution:
    """One run of a payload as a process."""

    def __init__(
        self,
        executor: LocalExecutor,
        process: asyncio.subprocess.Process,
        workspace: Workspace,
        *,
        kill_grace_s: float,
    ) -> None:
        self._executor = executor
        self._process = process
        self._workspace = workspace
        self._kill_grace_s = kill_grace_s
        self._started_at = time.time()

    @property
    def pid(self) -> int:
        """The pid of run.sh's shell, which is also its session and process group."""
        return self._process.pid

    async def wait(self) -> Outcome:
        """Wait for the script itself, then end what it left behind."""
        code = await self._process.wait()
        ended_at = time.time()
        self._executor.ended(self.pid)
        # Orphans of the script have just become children of this process: without one there is
        # nothing to look for. (While another script starts that can't be told; then look.)
        if self._executor.adopted() or self._executor.starting:
            await self._executor.end_leftovers(self._workspace, LEFTOVER_GRACE_S)
        number = -code if code < 0 else None
        return Outcome(code if number is None else 128 + number, number, self._started_at, ended_at)

    async def terminate(self) -> None:
        """TERM, then KILL after the grace, the whole tree."""
        await self._executor.end_leftovers(self._workspace, self._kill_grace_s)


def _open_output(workspace: Workspace) -> tuple[int, int]:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    stdout = os.open(workspace.stdout, flags, 0o600)
    try:
        return stdout, os.open(workspace.stderr, flags, 0o600)
    except OSError:
        os.close(stdout)
        raise
