"""Runs payloads as processes of this machine."""

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from job_orchestrator.client.errors import MachineFault, StillRunning
from job_orchestrator.client.executors.base import (
    ExecutorBusy,
    Outcome,
    RunId,
    RunPhase,
    RunRefused,
    RunRequest,
    RunState,
    StateListener,
)
from job_orchestrator.client.executors.local.cgroups.payload_cgroups import (
    PayloadCgroups,
    open_cgroups,
)
from job_orchestrator.client.executors.local.sandbox import Bubblewrap, open_sandbox
from job_orchestrator.client.executors.local.self_test import (
    check_that_scripts_run,
    verify_that_scripts_run,
)
from job_orchestrator.client.executors.local.settings import ExecutionSettings
from job_orchestrator.client.executors.local.spawner import Spawner
from job_orchestrator.client.executors.local.supervisor import Script, Supervisor
from job_orchestrator.client.executors.local.users import UserPool, open_users
from job_orchestrator.client.workspace.deferred_removal import DeferredRemoval
from job_orchestrator.client.workspace.layout import Workspaces
from job_orchestrator.common.errors import DomainError
from job_orchestrator.common.runtime.clock import steady_time
from job_orchestrator.common.runtime.loops import Loop
from job_orchestrator.common.runtime.threads import in_thread

logger = logging.getLogger(__name__)

LEFTOVER_GRACE_S = 1.0
"""Between TERM and KILL for processes that a script leaves when it ends by itself.

They have no work to save any more.
"""

REAPER_INTERVAL_S = 1.0

CLOSE_TIMEOUT_S = 5.0
"""Time for ``close`` to take the exit status of ended scripts, in seconds."""

POLL_INTERVAL_S = 60.0
"""Long, because every change of a run is notified; polling only reads a dictionary."""


@dataclass
class _Run:
    script: Script
    state: RunState
    follower: asyncio.Task[None] | None = None
    ended_here: bool = False
    """True if this process ends the run, so that its sandbox may be killed."""


class _SandboxKilled(DomainError):
    """The process of the sandbox was killed, but not by this process."""


class LocalExecutor:
    """Executor that starts ``bash run.sh`` in a new session, with a clean environment and no input.

    The kernel reports the end of a script through a pidfd, which the event loop waits for; nothing
    is polled. Scripts are not started through asyncio, whose child watcher knows nothing of the
    orphans that this process adopts.
    """

    survives_restart = False
    has_queue = False
    problem = ""
    poll_interval_s = POLL_INTERVAL_S

    def __init__(
        self,
        workspaces: Workspaces,
        environment: Mapping[str, str],
        *,
        kill_grace_s: float,
        cgroups: PayloadCgroups | None = None,
        users: UserPool | None = None,
        sandbox: Bubblewrap | None = None,
        large_leftovers: DeferredRemoval | None = None,
    ) -> None:
        """Create the executor and make this process the subreaper of its descendants.

        ``environment`` is what every script sees. ``large_leftovers`` removes large folders that
        payloads leave outside their workspaces.
        """
        self._workspaces = workspaces
        self._users = users
        self._sandbox = sandbox
        large = large_leftovers or DeferredRemoval("large leftovers")
        spawner = Spawner(environment, cgroups, users, sandbox, large)
        self._supervisor = Supervisor(workspaces.root, spawner)
        self._kill_grace_s = kill_grace_s
        self._runs: dict[RunId, _Run] = {}
        # Runs whose script is being started; as long as that takes, they are neither here nor lost.
        self._starting: set[RunId] = set()
        self._listeners: list[StateListener] = []
        self.loops: Sequence[Loop] = (Loop("reaper", self.reap, interval_s=REAPER_INTERVAL_S),)

    def subscribe(self, listener: StateListener) -> None:
        """Call ``listener`` when a script has started, and when its run is over."""
        self._listeners.append(listener)

    async def recover(self, wanted: Collection[RunId] = ()) -> Collection[RunId]:
        """End every process that a previous process of jo-client left; nothing can be taken over.

        Raises ``StillRunning``.
        """
        await self._supervisor.end_all()
        return ()

    async def verify(self) -> None:
        """Run a test script if scripts run as another user or in a sandbox.

        Raises ``StartupError``.
        """
        if self._users is not None:
            await in_thread(self._workspaces.allow_traversal)
        asked = {"RUN_AS": self._users, "SANDBOX": self._sandbox}
        names = [name for name, value in asked.items() if value is not None]
        if names:
            await verify_that_scripts_run(self._run_to_end, self._workspaces, names)

    async def self_test(self) -> None:
        """Run a test script to its end. Raises ``MachineFault``."""
        await check_that_scripts_run(self._run_to_end, self._workspaces)

    async def capacity(self) -> int | None:
        """Return None: SLOTS limits the runs."""
        return None

    async def submit(self, request: RunRequest) -> None:
        """Start a script.

        Raises ``RunRefused``, ``MachineFault``, or ``ExecutorBusy`` at the limit of processes.
        """
        run_id = request.run_id
        if run_id in self._runs:
            return
        self._starting.add(run_id)
        try:
            script = await self._supervisor.start(request.workspace, request.share)
        except BlockingIOError as error:  # EAGAIN
            raise ExecutorBusy(f"No process can be started now ({error.strerror})") from error
        except OSError as error:
            if not await in_thread(request.workspace.work.is_dir):
                raise RunRefused(
                    "The files of the payload were removed before its start"
                ) from error
            raise MachineFault(f"run.sh can't be started: {error}") from error
        finally:
            self._starting.discard(run_id)
        run = self._runs[run_id] = _Run(script, RunState(RunPhase.RUNNING, pid=script.pid))
        self._notify(run_id, run.state)
        run.follower = asyncio.create_task(self._follow(run_id, run), name=f"run {run_id}")

    async def poll(self, run_ids: Collection[RunId]) -> Mapping[RunId, RunState]:
        """Return the states of runs. Processes that this process did not start are LOST."""
        return {run_id: self._state(run_id) for run_id in run_ids}

    async def cancel(self, run_id: RunId) -> None:
        """Send TERM, and KILL after the grace time, to all processes of a run.

        Raises ``StillRunning``.
        """
        run = self._runs.get(run_id)
        if run is not None and run.state.phase is not RunPhase.ENDED:
            run.ended_here = True
            await self._supervisor.end(run.script, self._kill_grace_s)

    def forget(self, run_id: RunId) -> None:
        """Drop the record of a run that is over."""
        run = self._runs.get(run_id)
        if run is not None and run.state.over:
            del self._runs[run_id]

    async def close(self) -> None:
        """End all runs, and stop following them. Raises ``StillRunning``."""
        followers = {run.follower for run in self._runs.values() if run.follower is not None}
        for run in self._runs.values():
            run.ended_here = True
        try:
            await self._supervisor.end_all()
            if followers:
                await asyncio.wait(followers, timeout=CLOSE_TIMEOUT_S)
            await self.reap()  # orphans that ended after their script
        finally:
            for follower in followers:
                follower.cancel()
            await asyncio.gather(*followers, return_exceptions=True)

    async def reap(self) -> None:
        """Take the exit status of orphans whose script still runs: they would stay zombies."""
        await in_thread(self._supervisor.reap)

    def _state(self, run_id: RunId) -> RunState:
        if (run := self._runs.get(run_id)) is not None:
            return run.state
        if run_id in self._starting:
            return RunState(RunPhase.WAITING)
        return RunState(RunPhase.LOST, reason="jo-client was restarted")

    async def _run_to_end(self, request: RunRequest) -> RunState:
        await self.submit(request)
        run = self._runs[request.run_id]
        if run.follower is not None:
            await run.follower
        self.forget(request.run_id)
        return run.state

    async def _follow(self, run_id: RunId, run: _Run) -> None:
        """Wait for the end of a script, and notify the listeners of it."""
        try:
            run.state = RunState(RunPhase.ENDED, await self._outcome(run))
        except _SandboxKilled as error:
            run.state = RunState(RunPhase.LOST, reason=str(error))
        except (OSError, StillRunning) as error:
            run.state = RunState(RunPhase.FAILED, reason=str(error))
        except Exception as error:
            # The payload must not stay Running although nothing runs it.
            logger.exception("Run %s could not be run to its end", run_id)
            run.state = RunState(RunPhase.FAILED, reason=str(error))
        self._notify(run_id, run.state)

    async def _outcome(self, run: _Run) -> Outcome:
        """Wait for the script itself, then end the processes that it left.

        Raises ``StillRunning``, ``_SandboxKilled``.
        """
        script = run.script
        await _until_readable(script.exit_descriptor)
        ended_at = steady_time()
        collected = await self._supervisor.collect(script)
        if collected.leftovers:
            await self._supervisor.end(script, LEFTOVER_GRACE_S)
            await self._supervisor.release(script)
        code = collected.code
        number = -code if code < 0 else None
        # A script can't signal the process of its sandbox, which passes the signal of a script on.
        is_explained = run.ended_here or collected.limit_reached
        if self._sandbox is not None and number is not None and not is_explained:
            raise _SandboxKilled(f"The sandbox was ended by signal {number} from outside")
        # bubblewrap reports the signal that ended the script as a shell does, by its exit code.
        if self._sandbox is not None and code - 128 in signal.valid_signals():
            number = code - 128
        return Outcome(
            exit_code=code if number is None else 128 + number,
            signal=number,
            started_at=script.started_at,
            ended_at=ended_at,
            limit_reached=collected.limit_reached,
        )

    def _notify(self, run_id: RunId, state: RunState) -> None:
        for listener in self._listeners:
            listener(run_id, state)


@asynccontextmanager
async def open_local_executor(
    settings: ExecutionSettings,
    environment: Mapping[str, str],
    workspaces: Workspaces,
    *,
    kill_grace_s: float,
    large_leftovers: DeferredRemoval,
) -> AsyncIterator[LocalExecutor]:
    """Prepare users, cgroups and the sandbox as the settings ask, and close them at the end.

    ``environment`` is what every script sees; programs are searched in its PATH. Cgroups of a
    previous process of jo-client are ended and removed. Raises ``StartupError``.
    """
    users = open_users(settings.run_as)
    cgroups = await in_thread(open_cgroups, settings, workspaces.root)
    try:
        executor = LocalExecutor(
            workspaces,
            environment,
            kill_grace_s=kill_grace_s,
            cgroups=cgroups,
            users=users,
            sandbox=await in_thread(
                open_sandbox, settings, workspaces.data_path, environment["PATH"]
            ),
            large_leftovers=large_leftovers,
        )
        yield executor
        await executor.close()
    finally:
        if cgroups is not None:
            await in_thread(cgroups.close)


async def _until_readable(descriptor: int) -> None:
    """Wait until ``descriptor`` is readable, and close it."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(descriptor, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
