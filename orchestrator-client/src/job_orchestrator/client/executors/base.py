"""The contract between the payload runner and the ways of running a payload."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NewType, Protocol

from job_orchestrator.client.model import NO_SHARE, Share
from job_orchestrator.client.workspace.layout import Workspace
from job_orchestrator.common.errors import DomainError
from job_orchestrator.common.runtime.loops import Loop

RunId = NewType("RunId", str)
"""Name of one run: the uuid of its payload.

The caller chooses the name, so that a submission whose answer was lost can be repeated, and a run
can be matched with its payload after a restart. Native ids, such as the pid of a process or the
number of a batch job, are private to the executor.
"""


@dataclass(frozen=True)
class Outcome:
    """Outcome of run.sh.

    ``exit_code`` is that of the process, or 128 + n if signal n ended the process, as shells count.
    Times are seconds since the epoch, of a clock that does not jump. ``limit_reached`` describes
    the resource limit that the payload reached; it is empty if there was none.
    """

    exit_code: int
    signal: int | None
    started_at: float
    ended_at: float
    limit_reached: str = ""

    @property
    def run_s(self) -> float:
        """Seconds that the script ran."""
        return max(self.ended_at - self.started_at, 0.0)


class RunPhase(StrEnum):
    """Phase of a run."""

    WAITING = "waiting"
    """Submitted; run.sh has not begun."""

    RUNNING = "running"

    ENDED = "ended"
    """The run has ended with a known outcome; none of its processes is left."""

    FAILED = "failed"
    """The executor could not run the script to its end; another try would not help."""

    LOST = "lost"
    """The run has ended with an unknown outcome, and the script is not to blame."""

    EVICTED = "evicted"
    """The run was ended because its machine failed or was needed for others.

    It is run again, and that costs its job no attempt.
    """

    UNKNOWN = "unknown"
    """The executor cannot determine the phase at the moment. This is never taken for an end."""


_OVER = frozenset({RunPhase.ENDED, RunPhase.FAILED, RunPhase.LOST, RunPhase.EVICTED})


@dataclass(frozen=True)
class RunState:
    """State of a run.

    ``outcome`` is set in the phase ENDED only. ``reason`` explains the phase to the user. ``pid``
    is the process of run.sh on this machine, 0 if there is none. ``started_at`` is when run.sh
    began, in seconds since the epoch; 0: not known.
    """

    phase: RunPhase
    outcome: Outcome | None = None
    reason: str = ""
    pid: int = 0
    started_at: float = 0.0

    @property
    def over(self) -> bool:
        """True if the state is final."""
        return self.phase in _OVER


@dataclass(frozen=True)
class RunRequest:
    """Request to run ``run.sh`` in the work folder of ``workspace``.

    ``time_limit_s`` is for executors that must reserve time. The runner itself ends a run at its
    time limit, so an executor may ignore the value or add a margin. ``share`` is what the script
    may use of the machine.
    """

    run_id: RunId
    workspace: Workspace
    time_limit_s: float | None = None
    share: Share = NO_SHARE


class RunRefused(DomainError):
    """The run cannot be submitted, now or later. No process of it runs."""


class ExecutorBusy(DomainError):
    """The executor lacks resources and has submitted nothing; the same request succeeds later."""


class QueueFull(ExecutorBusy):
    """The batch system limits how many runs may be in its queue. That may last for hours."""


class ExecutorUnavailable(DomainError):
    """The executor did not answer, so the run may have been submitted. Repeat the request."""


StateListener = Callable[[RunId, RunState], None]


class Executor(Protocol):
    """A way of running payloads: processes of this machine, or a batch system."""

    @property
    def survives_restart(self) -> bool:
        """True if runs continue while jo-client is stopped."""

    @property
    def has_queue(self) -> bool:
        """True if runs may be in the phase WAITING for long; their payloads count as Prepared."""

    @property
    def problem(self) -> str:
        """Reason why runs can't be submitted or followed at present; empty if they can."""

    @property
    def poll_interval_s(self) -> float:
        """Seconds between two calls of ``poll`` for all runs."""

    @property
    def loops(self) -> Sequence[Loop]:
        """Background loops of the executor; the application starts and stops them."""

    def subscribe(self, listener: StateListener) -> None:
        """Call ``listener`` with each change of state that the executor notices by itself.

        An executor that notices nothing by itself never calls it, and is polled. The listener must
        not block. It is called in the event loop.
        """

    async def recover(self, wanted: Collection[RunId]) -> Collection[RunId]:
        """Take over, or end, what a previous process of jo-client left. Called once, at the start.

        ``wanted`` are the runs whose payloads are known; all others are ended. Returns those of
        them that still exist, or have ended with a known outcome. An executor whose runs do not
        survive a restart ends every process that was left, and returns nothing. Raises
        ``StillRunning``.
        """

    async def verify(self) -> None:
        """Check that scripts can be run as configured. Called once, after ``recover``.

        Raises ``StartupError``.
        """

    async def self_test(self) -> None:
        """Run a test script to its end, as a payload would run. Raises ``MachineFault``."""

    async def capacity(self) -> int | None:
        """Return how many more runs can be submitted now; None: only SLOTS limits them."""

    async def submit(self, request: RunRequest) -> None:
        """Submit a run. A repeat with the same ``run_id`` has no further effect.

        Raises ``RunRefused``, ``ExecutorBusy``, ``QueueFull``, ``ExecutorUnavailable``, and
        ``MachineFault`` if the machine can't start scripts.
        """

    async def poll(self, run_ids: Collection[RunId]) -> Mapping[RunId, RunState]:
        """Return the states of many runs in one call.

        A run that the answer lacks is in the phase UNKNOWN. A run of which the executor has no
        record is never reported as ENDED or FAILED, and one that is being submitted never as LOST.
        Raises ``ExecutorUnavailable``.
        """

    async def cancel(self, run_id: RunId) -> None:
        """End a run with everything that it started; on return nothing of it runs.

        Safe at any time: a run that is over or was never submitted is not an error. Raises
        ``StillRunning`` if processes resist, or if the executor does not answer.
        """

    def forget(self, run_id: RunId) -> None:
        """Drop the record of a run that is over. Called when its end has been stored.

        A run that is not over is kept, so that it can still be cancelled.
        """

    async def close(self) -> None:
        """Stop following runs. Called once, at the end.

        An executor whose runs do not survive a restart ends them. Raises ``StillRunning``.
        """
