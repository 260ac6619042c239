"""Admits payloads to slots, runs them, and stores how they ended."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from job_orchestrator.client.errors import PayloadNotFound, StillRunning
from job_orchestrator.client.executors.base import Executor, RunState
from job_orchestrator.client.executors.machine import Machine
from job_orchestrator.client.executors.monitor import NOT_STARTED, RunMonitor
from job_orchestrator.client.model import PayloadRow
from job_orchestrator.client.payloads.fitness import Fitness
from job_orchestrator.client.payloads.records import PayloadRecords
from job_orchestrator.client.payloads.run import Ending, Lost, NotStarted, PayloadRun
from job_orchestrator.client.payloads.store import PayloadStore, StoreError
from job_orchestrator.client.results.packer import Packer
from job_orchestrator.client.workspace.layout import Workspaces
from job_orchestrator.common.logs.context import logging_about
from job_orchestrator.common.runtime.backoff import Backoff
from job_orchestrator.common.runtime.clock import steady_time
from job_orchestrator.common.runtime.fault_injection import Point, reach
from job_orchestrator.common.runtime.loops import Loop, TaskOwner
from job_orchestrator.common.runtime.threads import in_thread
from job_orchestrator.common.status import PayloadStatus, TransitionRefused

logger = logging.getLogger(__name__)

INTERVAL_S = 0.5
BACKOFF = Backoff.exponential(0.2, 5.0, jitter=0.0)
KILL_ANSWER_S = 20.0
"""Seconds for which the answer to a kill request waits for the end of the payload."""

STOP_TIMEOUT_S = 5.0

MAX_PACKING = 256
"""Payloads that are packed while their slots are used by others. Above it slots stay occupied, so
that scripts can't produce results faster than they are packed."""

PACKING_NOTIFIED_AFTER_S = 0.01
"""Servers are notified of packing that takes longer. For shorter packing the end follows soon."""

PACKING_SHOWN_AFTER_S = 2.0
PACKING = "Its results are being packed"
"""Message of a Running payload for its user, if packing takes longer than that."""


class Runner:
    """Runs payloads in slots; ``loop`` drives its pass.

    A payload is run only by the task that changed it to Running. So no payload is run twice, even
    if the database fails at any statement.
    """

    def __init__(
        self,
        store: PayloadStore,
        workspaces: Workspaces,
        executor: Executor,
        packer: Packer,
        *,
        fitness: Fitness,
        slots: int,
        machine: Machine | None = None,
        records: PayloadRecords | None = None,
        backoff: Backoff = BACKOFF,
    ) -> None:
        """Create the runner. ``backoff`` is for failed submissions and failed statements.

        Payloads that ask for resources get them from ``machine``; None has none. ``records`` is
        set if payloads survive a restart.
        """
        self._store = store
        self._workspaces = workspaces
        self._executor = executor
        self._packer = packer
        self._fitness = fitness
        self._slots = slots
        self._machine = machine or Machine(0.0, 0)
        self._records = records
        self._backoff = backoff
        self._monitor = RunMonitor(executor)
        self._passes = Loop("runner", self.run_pass, interval_s=INTERVAL_S)
        self.loops: Sequence[Loop] = (self._passes, self._monitor.loop)
        self._owner = TaskOwner("runner", limit=slots + MAX_PACKING)
        self._notices = TaskOwner("packing", limit=MAX_PACKING)
        self._runs: dict[int, PayloadRun] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        # Payloads that occupy a slot: from their start to the end of their script.
        self._occupied: set[int] = set()
        # The last statement that starts payloads failed, and may have had its effect; or payloads
        # of a previous process were restored.
        self._start_in_doubt = executor.survives_restart
        # The last pass had more free slots than payloads: none waits for a slot.
        self._none_waits = False
        self._paused = False
        self._stopping = False

    async def run_pass(self) -> None:
        """Start Prepared payloads, the oldest first, while there are free slots."""
        free = await self._free()
        if free <= 0 or self._paused or self._fitness.problem:
            return
        startable = await self._count_startable(free)
        rows = await self._next(startable)
        self._none_waits = startable == free and len(rows) < free
        for row in rows:
            self._occupied.add(row.id)
            run = self._runs[row.id] = PayloadRun(
                row,
                self._machine.take(row.id, row.wanted),
                self._workspaces.of(row.uuid),
                self._executor,
                self._monitor,
                self._packer,
                self._backoff,
                partial(self._on_script_ended, row.id),
                partial(self._show_progress, row.id),
                self._report_fault,
            )
            self._tasks[row.id] = self._owner.spawn(self._run(run), f"payload {row.id}")

    def on_payload_changed(self, row: PayloadRow) -> None:
        """Start a pass for a payload that was added. A subscriber of the store."""
        if row.status is PayloadStatus.PREPARED:
            self._passes.wake()

    async def kill(self, payload_id: int) -> tuple[PayloadRow, bool]:
        """Terminate a payload; on return nothing of it runs any more.

        A payload that has not started never does; one that has ended keeps its state. Returns the
        payload after that, and whether it had not ended before. Raises ``PayloadNotFound``,
        ``StillRunning``.
        """
        row = await self._store.request_kill(payload_id)
        if row is None:
            return await self._store.get(payload_id), False
        run, task = self._runs.get(payload_id), self._tasks.get(payload_id)
        if run is None or task is None:
            return row, True
        if self._records is not None:
            await in_thread(self._records.update, row)
        run.kill()
        reach(Point.CLIENT_KILL_NOTED)
        await run.end()
        reach(Point.CLIENT_KILLED)
        await asyncio.wait({task}, timeout=KILL_ANSWER_S)
        if run.in_executor:
            raise StillRunning(f"Payload {payload_id} could not be ended yet; try again")
        return await self._store.get(payload_id), True

    async def recall(self, key: str) -> bool:
        """Take back the payload of ``key`` for its server if it has not started.

        On return it never starts. A repeat has the same outcome. Raises ``PayloadNotFound``.
        """
        if (row := await self._store.recall(key)) is not None:
            reach(Point.CLIENT_RECALLED)
            await in_thread(self._workspaces.discard, row.uuid)
        elif not self._store.was_returned(key):
            if await self._store.by_key(key) is None:
                raise PayloadNotFound(key)
            return False
        return True

    def pid(self, payload_id: int) -> int:
        """Return the pid of a payload's run.sh; 0 if there is none on this machine."""
        run = self._runs.get(payload_id)
        return run.pid if run is not None else 0

    async def drain(self, timeout_s: float) -> None:
        """Start no more payloads, and wait ``timeout_s`` for the running ones to end."""
        self._paused = True
        await self._owner.drain(timeout_s)

    async def stop(self) -> None:
        """Start no more payloads, and end the running ones unless they survive a restart.

        Payloads that are ended here keep the state Running. They did not end by themselves, and a
        server that asks in these last moments must not take this for their end; it runs the jobs
        again.
        """
        self._paused = self._stopping = True
        self._packer.stop()
        runs = tuple(self._runs.values())
        for run in runs:
            run.stop_with_client()
        if not self._executor.survives_restart:
            endings = [run.end() for run in runs if run.in_executor]
            for problem in await asyncio.gather(*endings, return_exceptions=True):
                if isinstance(problem, BaseException):
                    logger.error("While stopping: %s", problem)
            await self._owner.drain(STOP_TIMEOUT_S)
        await self._owner.close()
        await self._notices.close()

    async def _free(self) -> int:
        free = self._slots - len(self._occupied)
        capacity = await self._executor.capacity()
        return free if capacity is None else min(free, capacity)

    async def _count_startable(self, free: int) -> int:
        """Return how many payloads may start, the oldest first, until one lacks resources."""
        wanted = await self._store.next_wanted(free)
        fitting = self._machine.count_fitting(wanted)
        return free if fitting == len(wanted) else fitting

    async def _next(self, free: int) -> Sequence[PayloadRow]:
        """Change at most ``free`` payloads to Running, and return them.

        A failed statement may still have had its effect. Its payloads are Running although no call
        returned them, and no task runs them; the next pass finds them.
        """
        if self._start_in_doubt:
            rows = [row for row in await self._store.running() if row.id not in self._tasks]
            self._start_in_doubt = False
            if rows:
                self._passes.wake()  # more payloads may wait
                return rows
        try:
            return await self._store.start(free, queued=self._executor.has_queue)
        except StoreError:
            self._start_in_doubt = True
            raise

    def _on_script_ended(self, payload_id: int) -> None:
        """Free the slot of a payload whose results are packed from now on."""
        loop = asyncio.get_running_loop()
        loop.call_later(PACKING_SHOWN_AFTER_S, self._show_packing, payload_id)
        if len(self._tasks) - len(self._occupied) >= MAX_PACKING:
            return
        self._free_slot(payload_id)
        loop.call_later(PACKING_NOTIFIED_AFTER_S, self._notify_packing, payload_id)

    def _free_slot(self, payload_id: int) -> None:
        self._occupied.discard(payload_id)
        self._machine.release(payload_id)
        if not self._none_waits:
            self._passes.wake()

    def _notify_packing(self, payload_id: int) -> None:
        if payload_id in self._runs:
            self._notices.spawn(self._store.mark_packing(payload_id), f"payload {payload_id}")

    def _show_packing(self, payload_id: int) -> None:
        if payload_id in self._runs:
            self._notices.spawn(self._store.explain(payload_id, PACKING), f"payload {payload_id}")

    async def _run(self, run: PayloadRun) -> None:
        with logging_about(payload=run.row.id, key=run.row.key):
            try:
                await self._run_to_the_end(run)
            finally:
                del self._tasks[run.row.id], self._runs[run.row.id]
                self._free_slot(run.row.id)

    async def _run_to_the_end(self, run: PayloadRun) -> None:
        ending: Ending | Lost | NotStarted
        try:
            ending = await run.execute()
        except Exception as error:
            # Any error must end the payload: otherwise it stays Running and no task runs it.
            logger.exception("Payload %d could not be run", run.row.id)
            reason = f"The client could not run it: {error}"
            ending = Ending(PayloadStatus.FAILED, reason) if run.has_started else NotStarted(reason)
        if self._stopping:
            return
        if isinstance(ending, NotStarted):
            # First: servers must send the job elsewhere.
            await self._report_fault(ending.reason)
        elif run.has_started:
            self._fitness.note_started()
        await self._record_end(run.row, ending)
        failures = 0
        while not await self._store_end(run.row.id, ending):
            failures += 1
            await asyncio.sleep(self._backoff.delay_s(failures))
        self._executor.forget(run.run_id)

    async def _report_fault(self, problem: str) -> None:
        """Report a fault of the machine, and give back the payloads that wait for a slot."""
        await self._fitness.report(problem)
        for row in await self._store.prepared():
            await self._record_end(row, NotStarted(problem))
            await self._store.give_back_unstarted(row.id, problem)

    async def _record_end(self, row: PayloadRow, ending: Ending | Lost | NotStarted) -> None:
        """Make durable what servers are notified of next; it holds after a restart as well."""
        if self._records is None:
            return
        try:
            if isinstance(ending, Ending):
                ended = replace(
                    row,
                    status=ending.status,
                    message=ending.message,
                    exit_code=ending.exit_code,
                    results_sha256=ending.results_sha256,
                    ended_at=steady_time(),
                    queued=False,
                )
                await in_thread(self._records.update, ended)
            else:
                await in_thread(self._records.remove, row.uuid)
        except OSError as error:
            # After a restart it ends once more, in the same way.
            logger.error("The end of payload %d is not recorded: %s", row.id, error)

    async def _show_progress(self, payload_id: int, state: RunState) -> None:
        """Show the user of a payload why it waits, or that its script has begun."""
        if not self._executor.has_queue:
            return
        try:
            if state.phase in NOT_STARTED:
                await self._store.explain(payload_id, state.reason)
            else:
                await self._store.begin(payload_id)
        except StoreError as error:
            logger.error("The state of payload %d is not shown: %s", payload_id, error)

    async def _store_end(self, payload_id: int, ending: Ending | Lost | NotStarted) -> bool:
        """Store the end of a payload; False if the statement failed and must be repeated."""
        try:
            if isinstance(ending, Lost):
                await self._store.give_back_lost(
                    payload_id, ending.reason, costs_attempt=ending.costs_attempt
                )
            elif isinstance(ending, NotStarted):
                await self._store.give_back_unstarted(payload_id, ending.reason)
            else:
                await self._store.finish(payload_id, *ending)
        except StoreError as error:
            logger.error("The end of payload %d is not stored yet: %s", payload_id, error)
            return False
        except (TransitionRefused, PayloadNotFound) as error:
            logger.error("%s", error)
            return True
        reach(Point.CLIENT_PAYLOAD_ENDED)
        if isinstance(ending, NotStarted):
            logger.warning("Payload %d was given back: %s", payload_id, ending.reason)
        elif isinstance(ending, Lost):
            logger.warning("The run of payload %d was lost: %s", payload_id, ending.reason)
        else:
            logger.info("Payload %d is %s. %s", payload_id, ending.status, ending.message)
        return True
