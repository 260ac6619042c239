"""One payload in its slot: submits its script, enforces the time limit, packs the results."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from logging import DEBUG, WARNING
from typing import NamedTuple

from job_orchestrator.client.errors import (
    ArchiveFailed,
    DiskFails,
    MachineFault,
    OnlyOutputKept,
    PackingGivenUp,
    StillRunning,
)
from job_orchestrator.client.executors.base import (
    Executor,
    ExecutorBusy,
    ExecutorUnavailable,
    Outcome,
    QueueFull,
    RunId,
    RunPhase,
    RunRefused,
    RunRequest,
    RunState,
)
from job_orchestrator.client.executors.monitor import NOT_STARTED, RunMonitor
from job_orchestrator.client.model import PayloadRow, Share
from job_orchestrator.client.results.packer import Packer
from job_orchestrator.client.workspace.layout import Workspace
from job_orchestrator.common.errors import StorageFull
from job_orchestrator.common.runtime.backoff import Backoff
from job_orchestrator.common.runtime.clock import steady_time
from job_orchestrator.common.runtime.fault_injection import Point, reach
from job_orchestrator.common.status import PayloadStatus

logger = logging.getLogger(__name__)

CANCEL_RETRY_S = 5.0
KILLED = "Terminated on request"

BUSY_LIMIT_S = 60.0
"""Time for which a script waits until the machine has a process for it, in seconds."""

PACKING_BACKOFF = Backoff.exponential(1.0, 30.0)
PACKING_RETRIES_S = 120.0
"""Time for which packing is repeated while the disk fails, in seconds.

Longer would not help if the payload itself has filled the disk, and it holds up the client.
"""

KILLED_PACKING_S = 10.0
"""Time limit for packing the results of a payload that was terminated on request, in seconds."""


class Ending(NamedTuple):
    """End of a payload.

    ``results_sha256`` is the digest of its packed results. Its script ran for ``run_s``.
    """

    status: PayloadStatus
    message: str
    exit_code: int | None = None
    results_sha256: bytes | None = None
    run_s: float | None = None


class Lost(NamedTuple):
    """Loss of a payload's run: the payload has no end, and its job must be run again."""

    reason: str
    costs_attempt: bool = True


class NotStarted(NamedTuple):
    """Failed start of a payload by a fault of the machine: its job must be run elsewhere."""

    reason: str


class PayloadRun:
    """The run of one payload, from the submission of its script to its packed results."""

    def __init__(
        self,
        row: PayloadRow,
        share: Share,
        workspace: Workspace,
        executor: Executor,
        monitor: RunMonitor,
        packer: Packer,
        backoff: Backoff,
        script_ended: Callable[[], None],
        show_progress: Callable[[RunState], Awaitable[None]],
        report_fault: Callable[[str], Awaitable[None]],
    ) -> None:
        self.row = row
        self.run_id = RunId(row.uuid)
        self.in_executor = False
        """True if the executor has the run: it was submitted, and is not over."""
        self.has_started = False
        """True if the executor has accepted the run."""
        self._share = share
        self._workspace = workspace
        self._executor = executor
        self._monitor = monitor
        self._packer = packer
        self._backoff = backoff
        self._script_ended = script_ended
        self._show_progress = show_progress
        self._report_fault = report_fault
        self._killed = row.killed
        self._client_stops = False
        self._out_of_time = False
        self._stop_packing: asyncio.Event | None = None

    @property
    def pid(self) -> int:
        """Pid of run.sh; 0 if there is none on this machine."""
        return self._monitor.state(self.run_id).pid if self.in_executor else 0

    async def execute(self) -> Ending | Lost | NotStarted:
        """Run the script and pack its results.

        A run that a previous process of jo-client has submitted is taken over.
        """
        if self.row.refusal:
            return Ending(PayloadStatus.INVALID, self.row.refusal)
        try:
            with self._monitor.watching(self.run_id):
                if not await self._submit():
                    return Ending(PayloadStatus.KILLED, "Terminated before it started")
                state = await self._until_over()
        except MachineFault as error:
            if self._killed:
                return Ending(PayloadStatus.KILLED, "Terminated before it started")
            return NotStarted(str(error))
        except (RunRefused, StillRunning) as error:
            return _could_not_be_run(str(error))
        finally:
            self.in_executor = False
        if state.outcome is not None:
            self._script_ended()
            return await self._pack(state.outcome)
        if state.phase is RunPhase.FAILED:
            return _could_not_be_run(state.reason)
        if self._killed:
            return Ending(PayloadStatus.KILLED, KILLED)
        return Lost(state.reason, costs_attempt=state.phase is RunPhase.LOST)

    def kill(self) -> None:
        """Record that the payload is terminated on request; it is not submitted any more."""
        self._killed = True

    async def end(self) -> None:
        """End the script; if it has ended, stop packing its results. Raises ``StillRunning``."""
        if self.in_executor:
            await self._executor.cancel(self.run_id)
        elif self._stop_packing is not None:
            self._stop_packing.set()

    def stop_with_client(self) -> None:
        """Record that jo-client stops: an end from now on is not the end of the payload."""
        self._client_stops = True

    async def _submit(self) -> bool:
        """Submit the script; False if the payload was terminated before.

        A machine that has no process left, or a batch system that does not answer, is not the
        script's fault: the submission is repeated until it succeeds; without processes for
        ``BUSY_LIMIT_S``, the machine counts as faulty. Raises ``RunRefused``, ``MachineFault``,
        ``StillRunning``.
        """
        busy_until = time.monotonic() + BUSY_LIMIT_S
        request = RunRequest(self.run_id, self._workspace, self.row.time_limit_s, self._share)
        failures = 0
        # A previous process may have submitted it.
        in_doubt = self._executor.survives_restart
        while not (self._killed or self._client_stops):
            try:
                reach(Point.CLIENT_BEFORE_START)
                await self._executor.submit(request)
                reach(Point.CLIENT_STARTED)
            except (ExecutorBusy, ExecutorUnavailable) as error:
                is_busy = isinstance(error, ExecutorBusy) and not isinstance(error, QueueFull)
                if is_busy and time.monotonic() > busy_until:
                    raise MachineFault(str(error)) from error
                failures += 1
                in_doubt |= isinstance(error, ExecutorUnavailable)
                logger.log(WARNING if failures == 1 else DEBUG, "%s; waiting", error)
                await self._show_progress(RunState(RunPhase.WAITING, reason=str(error)))
                await asyncio.sleep(self._backoff.delay_s(failures))
                continue
            self.in_executor = self.has_started = True
            if self._must_end():  # since the submission began
                await self._executor.cancel(self.run_id)
            return True
        if in_doubt and self._must_end():
            await self._executor.cancel(self.run_id)
        return False

    def _must_end(self) -> bool:
        return self._killed or (self._client_stops and not self._executor.survives_restart)

    async def _until_over(self) -> RunState:
        """Wait for the end of the run, and end it when its time limit is reached."""
        if self._executor.has_queue:
            await self._follow_in_queue()
        if self.row.time_limit_s is None:
            return await self._monitor.over(self.run_id)
        state = await self._monitor.started(self.run_id)
        # It may have begun while no process of jo-client followed it.
        elapsed_s = max(steady_time() - state.started_at, 0.0) if state.started_at else 0.0
        limiter = asyncio.create_task(self._end_after(self.row.time_limit_s - elapsed_s))
        try:
            return await self._monitor.over(self.run_id)
        finally:
            limiter.cancel()

    async def _follow_in_queue(self) -> None:
        """Show why the run waits, until it begins."""
        state = self._monitor.state(self.run_id)
        while state.phase in NOT_STARTED:
            await self._show_progress(state)
            state = await self._monitor.changed(self.run_id, state)
        if state.phase is RunPhase.RUNNING or state.outcome is not None:
            await self._show_progress(state)

    async def _end_after(self, remaining_s: float) -> None:
        await asyncio.sleep(remaining_s)
        self._out_of_time = True
        limit_s = self.row.time_limit_s
        logger.info("Payload %d has reached its time limit of %g s", self.row.id, limit_s)
        while True:
            try:
                await self._executor.cancel(self.run_id)
            except (StillRunning, OSError) as error:
                logger.error("Payload %d could not be ended yet: %s", self.row.id, error)
                await asyncio.sleep(CANCEL_RETRY_S)
            else:
                return

    async def _pack(self, outcome: Outcome) -> Ending:
        killed = self._killed
        if self._client_stops:
            return Ending(PayloadStatus.KILLED, "The client stops")
        limit_s = self.row.time_limit_s if self._out_of_time else None
        status, message = _verdict(outcome, killed=killed, limit_s=limit_s)
        stop_packing = self._stop_packing = asyncio.Event()
        timer = None
        if killed:
            timer = asyncio.get_running_loop().call_later(KILLED_PACKING_S, stop_packing.set)
        sha256 = None
        try:
            reach(Point.CLIENT_SCRIPT_ENDED)
            sha256 = await self._pack_until_it_succeeds(outcome, stop_packing)
            reach(Point.CLIENT_PACKED)
        except PackingGivenUp as error:
            sha256, status = error.sha256, PayloadStatus.KILLED
            message = f"Terminated on request, before its results were packed; {error}"
        except (StorageFull, ArchiveFailed) as error:
            message = f"{message} {error}".strip()
            if isinstance(error, OnlyOutputKept):
                sha256 = error.sha256
            elif status is PayloadStatus.COMPLETED:
                message = f"{message} run.sh itself had ended well."
            if status is PayloadStatus.COMPLETED:
                status = PayloadStatus.FAILED
        finally:
            self._stop_packing = None
            if timer is not None:
                timer.cancel()
        return Ending(status, message, outcome.exit_code, sha256, outcome.run_s)

    async def _pack_until_it_succeeds(self, outcome: Outcome, stop_packing: asyncio.Event) -> bytes:
        """Pack the results. While the disk fails, packing is repeated; the script never is.

        Raises ``StorageFull``, ``ArchiveFailed``.
        """
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + PACKING_RETRIES_S
        failures = 0
        while True:
            try:
                return await self._packer.pack(self._workspace, outcome, stop_packing)
            except (StorageFull, DiskFails) as error:
                failures += 1
                delay_s = PACKING_BACKOFF.delay_s(failures)
                if self._killed or stop_packing.is_set() or loop.time() + delay_s > give_up_at:
                    raise
                await self._report_fault(f"Results can't be packed: {error}")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(delay_s):
                        await stop_packing.wait()


def _could_not_be_run(reason: str) -> Ending:
    return Ending(PayloadStatus.FAILED, f"run.sh could not be run: {reason}")


def _verdict(outcome: Outcome, *, killed: bool, limit_s: float | None) -> tuple[PayloadStatus, str]:
    """Return state and reason. ``limit_s`` is the time limit that ended the script, if one did."""
    if killed:
        return PayloadStatus.KILLED, KILLED
    if limit_s is not None:
        return PayloadStatus.FAILED, f"Time limit of {limit_s:.10g} s reached"
    if outcome.signal is not None:
        message = f"run.sh was ended by signal {outcome.signal}"
    elif outcome.exit_code != 0:
        message = f"run.sh exited with code {outcome.exit_code}"
    else:
        return PayloadStatus.COMPLETED, ""
    return PayloadStatus.FAILED, "; ".join(filter(None, (outcome.limit_reached, message)))
