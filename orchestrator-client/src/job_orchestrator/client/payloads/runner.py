"""Admits payloads to slots, runs them, and writes down how they ended."""

import asyncio
import errno
import logging
from collections.abc import Sequence

from job_orchestrator.client.errors import (
    ArchiveFailed,
    PackingGivenUp,
    PayloadNotFound,
    StillRunning,
)
from job_orchestrator.client.executors.base import Execution, Executor, Outcome
from job_orchestrator.client.model import PayloadRow
from job_orchestrator.client.payloads.store import DatabaseError, PayloadStore
from job_orchestrator.client.results.packer import Packer
from job_orchestrator.client.workspace.layout import Workspace, Workspaces
from job_orchestrator.common.errors import StorageFull
from job_orchestrator.common.logs.context import logging_about
from job_orchestrator.common.runtime.fault_injection import Point, reach
from job_orchestrator.common.runtime.loops import Loop, TaskOwner
from job_orchestrator.common.status import PayloadStatus, TransitionRefused

logger = logging.getLogger(__name__)

INTERVAL_S = 0.5
RETRY_S = 0.2
MAX_RETRY_S = 5.0
KILL_ANSWER_S = 20.0
"""How long a request to end a payload waits until it has ended."""

KILLED_PACKING_S = 10.0
"""How long the results of a payload that was ended so may take to be packed."""


class Runner:
    """The runner's pass and the payloads that run.

    A payload is run by whoever made it Running, and by nobody else: with the database failing at
    any statement, none is run twice. ``loop`` drives the pass; a listener of the store.
    """

    def __init__(
        self,
        store: PayloadStore,
        workspaces: Workspaces,
        executor: Executor,
        packer: Packer,
        *,
        slots: int,
    ) -> None:
        self._store = store
        self._workspaces = workspaces
        self._executor = executor
        self._packer = packer
        self._slots = slots
        self.loop = Loop("runner", self.run_pass, interval_s=INTERVAL_S)
        self._owner = TaskOwner("runner", limit=slots)
        self._executions: dict[int, Execution] = {}
        self._killed: set[int] = set()
        self._out_of_time: set[int] = set()
        # Those that have ended and are being packed: set to stop that.
        self._given_up: dict[int, asyncio.Event] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._in_doubt = False
        # The last pass had more free slots than payloads: none waits for a slot.
        self._all_taken = False
        self._paused = False
        self._stopping = False

    async def run_pass(self) -> None:
        """Start Prepared payloads, the oldest first, while there are free slots."""
        free = self._slots - len(self._tasks)
        if free <= 0 or self._paused:
            return
        rows = await self._next(free)
        self._all_taken = len(rows) < free
        for row in rows:
            if row.killed:
                self._killed.add(row.id)
            self._tasks[row.id] = self._owner.spawn(self._run(row), f"payload {row.id}")

    async def _next(self, free: int) -> Sequence[PayloadRow]:
        """Make at most ``free`` payloads Running and return them.

        When the statement failed, it may still have had its effect: payloads are Running then that
        nobody was told of, so that nobody has run them.
        """
        if self._in_doubt:
            rows = [row for row in await self._store.running() if row.id not in self._tasks]
            self._in_doubt = False
            if rows:
                self.loop.wake()  # others may wait
                return rows
        try:
            return await self._store.start(free)
        except DatabaseError:
            self._in_doubt = True
            raise

    def note(self, row: PayloadRow) -> None:
        """Look at once for a slot for a new payload."""
        if row.status is PayloadStatus.PREPARED:
            self.loop.wake()

    async def kill(self, payload_id: int) -> tuple[PayloadRow, bool]:
        """End a payload; on return nothing of it runs any more.

        One that has not started never does; one that has ended stays what it was. Returns it as it
        then is, and whether there was anything to end. Raises ``PayloadNotFound``,
        ``StillRunning``.
        """
        row = await self._store.request_kill(payload_id)
        if row is None:
            return await self._store.get(payload_id), False
        task = self._tasks.get(payload_id)
        if task is None:
            return row, True
        self._killed.add(payload_id)
        reach(Point.CLIENT_KILL_NOTED)
        execution = self._executions.get(payload_id)
        if execution is not None:
            await execution.terminate()
        elif payload_id in self._given_up:
            self._given_up[payload_id].set()
        reach(Point.CLIENT_KILLED)
        await asyncio.wait({task}, timeout=KILL_ANSWER_S)
        if payload_id in self._executions:
            raise StillRunning(f"Payload {payload_id} could not be ended yet; try again")
        return await self._store.get(payload_id), True

    def pid(self, payload_id: int) -> int:
        """The process of a payload's run.sh; 0 if it doesn't run."""
        execution = self._executions.get(payload_id)
        return execution.pid if execution else 0

    async def drain(self, timeout_s: float) -> None:
        """Start nothing more, and give what runs this long to end."""
        self._paused = True
        await self._owner.drain(timeout_s)

    async def stop(self) -> None:
        """Start nothing more, and end all that runs.

        What is ended so keeps the state Running: it was not its fault, and a server that asks in
        these last moments must not take it for an end. It runs the job again.
        """
        self._paused = self._stopping = True
        self._packer.stop()
        endings = [execution.terminate() for execution in self._executions.values()]
        for problem in await asyncio.gather(*endings, return_exceptions=True):
            if isinstance(problem, BaseException):
                logger.error("While stopping: %s", problem)
        await self._owner.drain(MAX_RETRY_S)
        await self._owner.close()

    async def _run(self, row: PayloadRow) -> None:
        with logging_about(payload=row.id, key=row.key):
            await self._run_to_the_end(row)

    async def _run_to_the_end(self, row: PayloadRow) -> None:
        workspace = self._workspaces.of(row.uuid)
        try:
            try:
                outcome = await self._outcome(row, workspace)
            except Exception as error:
                # Whatever it is, the payload must not stay Running without anybody running it.
                logger.exception("Payload %d could not be run", row.id)
                outcome = PayloadStatus.FAILED, f"The client could not run it: {error}", None
            if not self._stopping:
                await self._finish(row, *outcome)
        finally:
            self._tasks.pop(row.id, None)
            self._killed.discard(row.id)
            self._out_of_time.discard(row.id)
            if not self._all_taken:
                self.loop.wake()

    async def _outcome(
        self, row: PayloadRow, workspace: Workspace
    ) -> tuple[PayloadStatus, str, int | None]:
        """Run a payload and pack its results: state, reason and exit code that it ends with."""
        if row.refusal:
            return PayloadStatus.INVALID, row.refusal, None
        try:
            execution = await self._start(row, workspace)
            outcome = await self._end_of(row, execution) if execution else None
        except (OSError, StillRunning) as error:
            return PayloadStatus.FAILED, f"run.sh could not be run: {error}", None
        finally:
            self._executions.pop(row.id, None)
        if outcome is None:
            return PayloadStatus.KILLED, "Terminated before it started", None
        return await self._judge(row, workspace, outcome)

    async def _start(self, row: PayloadRow, workspace: Workspace) -> Execution | None:
        """Start the script; None if the payload was killed before.

        A machine at its limit of processes is not the script's fault: try again until it works.
        """
        pause_s = RETRY_S
        while row.id not in self._killed and not self._stopping:
            try:
                reach(Point.CLIENT_BEFORE_START)
                execution = await self._executor.start(workspace)
                reach(Point.CLIENT_STARTED)
            except BlockingIOError as error:
                if error.errno != errno.EAGAIN:
                    raise
                logger.warning("No process can be started now (%s); waiting", error.strerror)
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, MAX_RETRY_S)
                continue
            self._executions[row.id] = execution
            if row.id in self._killed or self._stopping:  # while it was being started
                await execution.terminate()
            return execution
        return None

    async def _end_of(self, row: PayloadRow, execution: Execution) -> Outcome:
        """Wait for the end of a script, and bring it about when its time is up."""
        if row.time_limit_s is None:
            return await execution.wait()
        limiter = asyncio.create_task(self._end_after(row.time_limit_s, row, execution))
        try:
            return await execution.wait()
        finally:
            limiter.cancel()

    async def _end_after(self, limit_s: float, row: PayloadRow, execution: Execution) -> None:
        await asyncio.sleep(limit_s)
        self._out_of_time.add(row.id)
        logger.info("Payload %d has reached its time limit of %g s", row.id, limit_s)
        while True:
            try:
                await execution.terminate()
            except (StillRunning, OSError) as error:
                logger.error("Payload %d could not be ended yet: %s", row.id, error)
                await asyncio.sleep(MAX_RETRY_S)
            else:
                return

    async def _judge(
        self, row: PayloadRow, workspace: Workspace, outcome: Outcome
    ) -> tuple[PayloadStatus, str, int | None]:
        killed = row.id in self._killed
        if self._stopping:
            return PayloadStatus.KILLED, "The client stops", None
        limit_s = row.time_limit_s if row.id in self._out_of_time else None
        status, message = _verdict(outcome, killed=killed, limit_s=limit_s)
        given_up = self._given_up[row.id] = asyncio.Event()
        timer = None
        if killed:
            timer = asyncio.get_running_loop().call_later(KILLED_PACKING_S, given_up.set)
        try:
            reach(Point.CLIENT_SCRIPT_ENDED)
            await self._packer.pack(workspace, outcome, given_up)
            reach(Point.CLIENT_PACKED)
        except PackingGivenUp as error:
            status = PayloadStatus.KILLED
            message = f"Terminated on request, before its results were packed; {error}"
        except (StorageFull, ArchiveFailed) as error:
            if status is PayloadStatus.COMPLETED:
                status = PayloadStatus.FAILED
            message = f"{message} {error}".strip()
        finally:
            del self._given_up[row.id]
            if timer is not None:
                timer.cancel()
        return status, message, outcome.exit_code

    async def _finish(
        self, row: PayloadRow, status: PayloadStatus, message: str, exit_code: int | None
    ) -> None:
        """Write down how a payload ended, however often that takes: it is not run again."""
        pause_s = RETRY_S
        while True:
            try:
                await self._store.finish(row.id, status, message, exit_code)
            except DatabaseError as error:
                logger.error("The end of payload %d is not written yet: %s", row.id, error)
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, MAX_RETRY_S)
            except (TransitionRefused, PayloadNotFound) as error:
                logger.error("%s", error)
                return
            else:
                reach(Point.CLIENT_PAYLOAD_ENDED)
                logger.info("Payload %d is %s. %s", row.id, status, message)
                return


def _verdict(outcome: Outcome, *, killed: bool, limit_s: float | None) -> tuple[PayloadStatus, str]:
    """State and reason. ``limit_s`` is the time limit that it was ended for, None if it wasn't."""
    if killed:
        return PayloadStatus.KILLED, "Terminated on request"
    if limit_s is not None:
        return PayloadStatus.FAILED, f"Time limit of {limit_s:.10g} s reached"
    if outcome.signal is not None:
        message = f"run.sh was ended by signal {outcome.signal}"
    elif outcome.exit_code != 0:
        message = f"run.sh exited with code {outcome.exit_code}"
    else:
        return PayloadStatus.COMPLETED, ""
    return PayloadStatus.FAILED, "; ".join(filter(None, (outcome.limit_reached, message)))
