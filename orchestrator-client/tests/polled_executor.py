"""Executor for tests that behaves like a batch system: it is polled, and its runs survive."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from job_orchestrator.client.errors import StillRunning
from job_orchestrator.client.executors.base import (
    ExecutorUnavailable,
    Outcome,
    RunId,
    RunPhase,
    RunRefused,
    RunRequest,
    RunState,
    StateListener,
)
from job_orchestrator.client.workspace.shebang import script_command
from job_orchestrator.common.runtime.loops import Loop

GRACE_S = 0.2
KILL_TIMEOUT_S = 60.0


@dataclass
class Job:
    """A job of the batch system; without a process it waits in the queue, or was cancelled."""

    request: RunRequest
    process: "subprocess.Popen[bytes] | None" = None
    started_at: float = 0.0
    state: RunState = RunState(RunPhase.WAITING)  # noqa: RUF009 (a frozen value)


@dataclass
class BatchSystem:
    """Jobs by name. The system goes on when the executor, its client, is closed.

    All methods block. They execute one at a time, as the commands of a scheduler do.
    """

    jobs: dict[RunId, Job] = field(default_factory=dict)
    queue_is_open: bool = True
    """False: submitted jobs wait in the queue."""

    answers: bool = True
    """False: every command fails, although a submission has its effect."""

    lock: threading.RLock = field(default_factory=threading.RLock)

    def submit(self, request: RunRequest) -> None:
        """Accept a job; a name that is known already has no further effect."""
        if not request.workspace.work.is_dir():
            raise RunRefused(f"{request.workspace.work} does not exist")
        with self.lock:
            self.jobs.setdefault(request.run_id, Job(request))
            self.schedule()

    def schedule(self) -> None:
        """Start the jobs that wait, if the queue is open, and record those that have ended."""
        with self.lock:
            for job in tuple(self.jobs.values()):
                if job.state.phase is RunPhase.WAITING and self.queue_is_open:
                    self._start(job)
                elif job.state.phase is RunPhase.RUNNING and job.process is not None:
                    code = job.process.poll()
                    if code is not None:
                        self._end(job, code)

    def lose(self, run_id: RunId) -> None:
        """Let the machine of a job fail."""
        with self.lock:
            self.cancel(run_id)
            self.jobs[run_id].state = RunState(RunPhase.LOST, reason="node failure")

    def cancel(self, run_id: RunId) -> None:
        """End a job, waiting or running, and wait until its processes have ended."""
        with self.lock:
            job = self.jobs.get(run_id)
            if job is None or job.state.over:
                return
            if job.process is None:
                job.state = RunState(RunPhase.LOST, reason="cancelled in the queue")
                return
            with contextlib.suppress(ProcessLookupError):
                os.killpg(job.process.pid, signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    job.process.wait(GRACE_S)
                os.killpg(job.process.pid, signal.SIGKILL)
            self._end(job, job.process.wait())

    def _start(self, job: Job) -> None:
        workspace = job.request.workspace
        with workspace.stdout.open("ab") as stdout, workspace.stderr.open("ab") as stderr:
            job.process = subprocess.Popen(
                script_command(workspace, shutil.which("bash") or "bash"),
                cwd=workspace.work,
                env={"PATH": os.defpath},
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        job.started_at = time.time()
        job.state = RunState(RunPhase.RUNNING)

    def _end(self, job: Job, code: int) -> None:
        if job.process is not None:
            _kill_group(job.process.pid)
        number = -code if code < 0 else None
        outcome = Outcome(
            exit_code=128 - code if code < 0 else code,
            signal=number,
            started_at=job.started_at,
            ended_at=time.time(),
        )
        job.state = RunState(RunPhase.ENDED, outcome)


def _kill_group(group: int) -> None:
    """Kill the processes that a script has left, and wait until they have ended.

    The script itself must have been reaped.
    """
    deadline = time.monotonic() + KILL_TIMEOUT_S
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < deadline:
            os.killpg(group, signal.SIGKILL)
            # Orphans are children of this process, if a local executor made it a subreaper.
            with contextlib.suppress(ChildProcessError):
                os.waitpid(-group, os.WNOHANG)
            time.sleep(0.01)
        raise AssertionError(f"processes of group {group} do not end")


class PolledExecutor:
    """Client of the batch system. It never notifies: changes are only found by polling."""

    survives_restart = True
    has_queue = True
    problem = ""
    poll_interval_s = 0.02
    loops: Sequence[Loop] = ()

    def __init__(self, system: BatchSystem) -> None:
        self.system = system
        self.free: int | None = None

    def subscribe(self, listener: StateListener) -> None:
        """Ignore the listener."""

    async def recover(self, wanted: Collection[RunId]) -> Collection[RunId]:
        """Return the jobs that the system has."""
        return tuple(run_id for run_id in wanted if run_id in self.system.jobs)

    async def verify(self) -> None:
        """Do nothing."""

    async def self_test(self) -> None:
        """Do nothing: the system takes every job."""

    async def capacity(self) -> int | None:
        """Return the number that the test has set."""
        return self.free

    async def submit(self, request: RunRequest) -> None:
        """Submit a job. A system that does not answer has it nevertheless."""
        await asyncio.to_thread(self.system.submit, request)
        self._check_answer()

    async def poll(self, run_ids: Collection[RunId]) -> Mapping[RunId, RunState]:
        """Return the states of the jobs that the system knows."""
        self._check_answer()
        await asyncio.to_thread(self.system.schedule)
        return {
            run_id: self.system.jobs[run_id].state
            for run_id in run_ids
            if run_id in self.system.jobs
        }

    async def cancel(self, run_id: RunId) -> None:
        """Cancel a job."""
        if not self.system.answers:
            raise StillRunning("the batch system does not answer")
        await asyncio.to_thread(self.system.cancel, run_id)

    def forget(self, run_id: RunId) -> None:
        """Remove a job that is over from the system."""
        self.system.jobs.pop(run_id, None)

    async def close(self) -> None:
        """Do nothing: the jobs go on."""

    def _check_answer(self) -> None:
        if not self.system.answers:
            raise ExecutorUnavailable("the batch system does not answer")
