"""Runs payloads as processes of this machine."""

import asyncio
import logging
import os
import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from orchestrator_client.errors import StillRunning
from orchestrator_client.executors import processes
from orchestrator_client.executors.base import Outcome
from orchestrator_client.workspace import SCRIPT, Workspace
from orchestrator_common.threads import in_thread

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

    This process must have no other children than scripts; see ``processes``. They are not started
    through asyncio, whose bookkeeping of children knows no adopted ones.
    """

    def __init__(
        self, folder: Path, environment: Mapping[str, str], *, kill_grace_s: float
    ) -> None:
        """``folder`` is the one that holds the workspaces."""
        self._folder = folder
        self._environment = environment
        self._kill_grace_s = kill_grace_s
        self._scripts: set[int] = set()
        # Held from the start of a script until its pid is noted, and while it is reaped: whoever
        # compares children with scripts never takes the one for an orphan.
        self._lock = threading.Lock()
        processes.become_subreaper()

    async def start(self, workspace: Workspace) -> "LocalExecution":
        """Start a payload. Raises ``OSError`` (EAGAIN: the limit of processes is reached)."""
        return await in_thread(self._start, workspace)

    async def clear(self) -> None:
        """End whatever runs in any workspace of the folder. Raises ``StillRunning``."""
        left = await in_thread(processes.of_data_path, self._folder)
        if left:
            logger.warning("Ending %d processes that belong to no payload any more", len(left))
            await self._end(lambda: processes.of_data_path(self._folder), 0.0, str(self._folder))

    async def reap(self) -> None:
        """Take the exit status of orphans whose script still runs: they would stay zombies."""
        await in_thread(lambda: processes.reap(self._adopted()))

    async def end_leftovers(self, workspace: Workspace, script: int, grace_s: float) -> None:
        """End whatever of a payload still runs, and reap it. Raises ``StillRunning``."""
        await self._end(
            lambda: processes.of_payload(workspace.root, script, self._running_scripts),
            grace_s,
            workspace.root.name,
        )

    def collect(self, process: "subprocess.Popen[bytes]") -> tuple[int, bool]:
        """Exit code (negative: signal) of a script that has ended; whether there are orphans.

        Orphans of the script have become children of this process the moment that it ended.
        """
        with self._lock:
            code = process.wait()
            self._scripts.discard(process.pid)
        return code, bool(self._adopted())

    def _start(self, workspace: Workspace) -> "LocalExecution":
        started_at = time.time()
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        stdout = os.open(workspace.stdout, flags, 0o600)
        try:
            stderr = os.open(workspace.stderr, flags, 0o600)
            try:
                process = self._spawn(workspace, stdout, stderr)
            finally:
                os.close(stderr)
        finally:
            os.close(stdout)
        try:
            exit_descriptor = os.pidfd_open(process.pid)
        except OSError:  # too many open files
            process.kill()
            self.collect(process)
            raise
        return LocalExecution(
            self,
            process,
            workspace,
            started_at=started_at,
            exit_descriptor=exit_descriptor,
            kill_grace_s=self._kill_grace_s,
        )

    def _spawn(self, workspace: Workspace, stdout: int, stderr: int) -> "subprocess.Popen[bytes]":
        with self._lock:
            process = subprocess.Popen(  # noqa: S603 (running it is what the client is for)
                ["bash", SCRIPT],  # noqa: S607 (the bash of the administrator's PATH)
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
            self._scripts.add(process.pid)
        return process

    async def _end(self, find: processes.Find, grace_s: float, what: str) -> None:
        """TERM, then KILL after the grace. Raises ``StillRunning``."""
        ending = processes.Ending(find)
        loop = asyncio.get_running_loop()
        started = loop.time()
        while await in_thread(ending.round, kill=loop.time() >= started + grace_s):
            if loop.time() > started + grace_s + KILL_TIMEOUT_S:
                raise StillRunning(f"Processes of {what} resist being ended")
            await asyncio.sleep(POLL_S)
        await self.reap()

    def _adopted(self) -> set[int]:
        # In this order: a script that starts in between is no orphan.
        children = processes.possible_orphans()
        return children - self._running_scripts()

    def _running_scripts(self) -> frozenset[int]:
        with self._lock:
            return frozenset(self._scripts)


class LocalExecution:
    """One run of a payload as a process."""

    def __init__(
        self,
        executor: LocalExecutor,
        process: "subprocess.Popen[bytes]",
        workspace: Workspace,
        *,
        started_at: float,
        exit_descriptor: int,
        kill_grace_s: float,
    ) -> None:
        self._executor = executor
        self._process = process
        self._workspace = workspace
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
        code, orphans = await in_thread(self._executor.collect, self._process)
        if orphans:
            await self._executor.end_leftovers(self._workspace, self.pid, LEFTOVER_GRACE_S)
        number = -code if code < 0 else None
        return Outcome(code if number is None else 128 + number, number, self._started_at, ended_at)

    async def terminate(self) -> None:
        """TERM, then KILL after the grace, the whole tree. Raises ``StillRunning``."""
        await self._executor.end_leftovers(self._workspace, self.pid, self._kill_grace_s)


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
