"""What the batch executor knows of one run, and what follows from it."""

import asyncio
import math
from dataclasses import dataclass, field

from job_orchestrator.client.executors.base import Outcome, RunPhase, RunState
from job_orchestrator.client.executors.batch.marks import Mark
from job_orchestrator.client.executors.batch.scheduler import JobPhase, JobReport
from job_orchestrator.common.runtime.clock import steady_time

_KILLED = 137
_LIMITS = {
    JobPhase.TIMED_OUT: "The time limit of the batch system was reached",
    JobPhase.OUT_OF_MEMORY: "The memory limit of the batch job was reached",
}


@dataclass(eq=False)
class FollowedJob:
    """A run that was submitted. ``name`` is that of its job.

    ``known_from`` is the monotonic time of the submission: only an answer to a later question says
    something about the job. ``gone_since`` is the monotonic time since which the system does not
    have the job as a live one, and ``report`` what the system last said.
    """

    name: str
    known_from: float
    state: RunState = RunState(RunPhase.WAITING)  # noqa: RUF009 (a frozen value)
    native_id: str = ""
    is_ending: bool = False
    report: JobReport | None = None
    gone_since: float = math.inf
    over: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def has_started(self) -> bool:
        """True if the start of run.sh is known."""
        return self.state.started_at > 0

    def place(self, system: str) -> str:
        """Name the job for administrators."""
        return f"{system} job {self.native_id or self.name}"

    def by_mark(self, mark: Mark, limit_reached: str = "") -> RunState:
        """Return the state that follows from marks."""
        if mark.exit_code is None:
            return RunState(RunPhase.RUNNING, started_at=mark.started_at)
        code = mark.exit_code
        number = code - 128 if 128 < code < 193 else None
        ended_at = max(mark.ended_at, mark.started_at)
        outcome = Outcome(code, number, mark.started_at, ended_at, limit_reached)
        return RunState(RunPhase.ENDED, outcome)

    def without_mark(self, report: JobReport | None, system: str) -> RunState:
        """Return the state of a job that is gone and has left no mark of its end.

        ``report`` is what the system remembers; None: nothing.
        """
        phase = report.phase if report is not None else None
        if self.is_ending and phase in (None, JobPhase.CANCELLED, JobPhase.ENDED):
            if not self.has_started:
                return RunState(RunPhase.LOST, reason="It was cancelled before it began")
            return self._ended(_KILLED)
        if phase is JobPhase.EVICTED:
            return RunState(RunPhase.EVICTED, reason=f"{self.place(system)}: {report}")
        if phase in _LIMITS:
            return self._ended(_KILLED, _LIMITS[phase])
        if phase is JobPhase.ENDED and report is not None and report.exit_code is not None:
            if self.has_started:
                return self._ended(report.exit_code)
            reason = (
                f"{self.place(system)} has ended, and not a sign of it is in the data folder; all"
                " nodes must see DATA_PATH under the same name"
            )
            return RunState(RunPhase.LOST, reason=reason)
        what = str(report) if report is not None else "is not known there any more"
        return RunState(RunPhase.LOST, reason=f"{self.place(system)}: {what}")

    def _ended(self, exit_code: int, limit_reached: str = "") -> RunState:
        now = steady_time()
        mark = Mark(self.state.started_at or now, exit_code=exit_code, ended_at=now)
        return self.by_mark(mark, limit_reached)
