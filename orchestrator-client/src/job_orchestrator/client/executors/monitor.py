"""Follows the runs of an executor, by its notifications or by polling."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from job_orchestrator.client.executors.base import Executor, RunId, RunPhase, RunState
from job_orchestrator.common.runtime.loops import Loop

_NOTHING_KNOWN = RunState(RunPhase.UNKNOWN)
NOT_STARTED = frozenset({RunPhase.WAITING, RunPhase.UNKNOWN})


@dataclass
class _Watched:
    state: RunState = _NOTHING_KNOWN
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class RunMonitor:
    """Last known states of runs, for tasks that wait for a change.

    An executor that notices changes by itself notifies the monitor, so that the end of a script is
    known immediately. ``loop`` polls all watched runs in one call every ``poll_interval_s``, which
    is how the states of other executors become known.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._watched: dict[RunId, _Watched] = {}
        self.loop = Loop("run monitor", self.run_pass, interval_s=executor.poll_interval_s)
        executor.subscribe(self._note)

    async def run_pass(self) -> None:
        """Poll the watched runs. Raises ``ExecutorUnavailable``."""
        if self._watched:
            for run_id, state in (await self._executor.poll(tuple(self._watched))).items():
                self._note(run_id, state)

    @contextmanager
    def watching(self, run_id: RunId) -> Iterator[None]:
        """Watch a run within the block. To be entered before the run is submitted."""
        self._watched[run_id] = _Watched()
        try:
            yield
        finally:
            del self._watched[run_id]

    def state(self, run_id: RunId) -> RunState:
        """Return the last known state of a watched run; UNKNOWN for any other run."""
        watched = self._watched.get(run_id)
        return watched.state if watched is not None else _NOTHING_KNOWN

    async def started(self, run_id: RunId) -> RunState:
        """Wait until run.sh has begun, or the run is over."""
        return await self._wait(run_id, lambda state: state.phase not in NOT_STARTED)

    async def changed(self, run_id: RunId, known: RunState) -> RunState:
        """Wait until the state of a watched run is another one than ``known``."""
        return await self._wait(run_id, lambda state: state != known)

    async def over(self, run_id: RunId) -> RunState:
        """Wait for the end of a watched run. One task at a time may wait for a run."""
        return await self._wait(run_id, lambda state: state.over)

    async def _wait(self, run_id: RunId, reached: Callable[[RunState], bool]) -> RunState:
        watched = self._watched[run_id]
        while not reached(watched.state):
            watched.changed.clear()
            await watched.changed.wait()
        return watched.state

    def _note(self, run_id: RunId, state: RunState) -> None:
        watched = self._watched.get(run_id)
        # A poll that began before the end of a run may be answered after the notification of it.
        if watched is not None and not watched.state.over:
            watched.state = state
            watched.changed.set()
