"""Runs payloads as jobs of a batch system. They go on while jo-client is stopped."""

import asyncio
import logging
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from job_orchestrator.client.errors import MachineFault, StillRunning
from job_orchestrator.client.executors.base import (
    ExecutorUnavailable,
    QueueFull,
    RunId,
    RunPhase,
    RunRefused,
    RunRequest,
    RunState,
    StateListener,
)
from job_orchestrator.client.executors.batch.followed_job import FollowedJob
from job_orchestrator.client.executors.batch.job_files import JobFiles
from job_orchestrator.client.executors.batch.marks import Mark
from job_orchestrator.client.executors.batch.scheduler import (
    JobPhase,
    JobRefused,
    JobReport,
    Scheduler,
    SchedulerUnavailable,
    SubmitLimitReached,
)
from job_orchestrator.client.workspace.layout import Workspaces
from job_orchestrator.common.runtime.loops import Loop
from job_orchestrator.common.runtime.threads import in_thread

logger = logging.getLogger(__name__)

TIME_MARGIN_S = 120.0
"""Added to a payload's time limit for the batch system, whose limit is the second line of defence:
jo-client itself ends a script at its limit, and so that it gets TERM."""


@dataclass(frozen=True)
class BatchTiming:
    """Intervals and bounds. Times are in seconds.

    ``mark_interval_s``: between two readings of the marks. ``ask_interval_s``: between two
    questions to the batch system, ``cancel_ask_interval_s`` while a run is being ended.
    ``mark_grace_s``: for the mark of a job that the system has as ended, because file systems of
    clusters show new files late; ``end_grace_s`` if the system itself has ended the job.
    """

    mark_interval_s: float = 0.5
    ask_interval_s: float = 10.0
    cancel_ask_interval_s: float = 1.0
    mark_grace_s: float = 60.0
    end_grace_s: float = 3.0
    cancel_timeout_s: float = 90.0
    max_submissions: int = 4


class BatchExecutor:
    """Executor that submits a job for each payload. ``scheduler`` knows one batch system.

    Start and end of a script are learned from marks that the job writes. One question about all
    jobs, at long intervals, finds those that can't write a mark any more.
    """

    survives_restart = True
    has_queue = True
    poll_interval_s = 60.0

    def __init__(
        self,
        scheduler: Scheduler,
        workspaces: Workspaces,
        environment: Mapping[str, str],
        *,
        kill_grace_s: float,
        timing: BatchTiming = BatchTiming(),
    ) -> None:
        """Create the executor. ``environment`` is what every script sees."""
        data_path = workspaces.data_path.absolute()
        self._scheduler = scheduler
        self._workspaces = Workspaces(data_path)
        self._files = JobFiles(self._workspaces, environment)
        self._kill_grace_s = kill_grace_s
        self._timing = timing
        self._jobs: dict[RunId, FollowedJob] = {}
        self._forgotten: list[str] = []
        self._doomed: set[str] = set()
        self._listeners: list[StateListener] = []
        self._submissions = asyncio.Semaphore(timing.max_submissions)
        self._asking = Loop("batch queue", self.ask, interval_s=timing.ask_interval_s)
        self.loops: Sequence[Loop] = (
            Loop("batch marks", self.read_marks, interval_s=timing.mark_interval_s),
            self._asking,
        )
        self.problem = ""

    def subscribe(self, listener: StateListener) -> None:
        """Call ``listener`` with each change that a mark or the batch system shows."""
        self._listeners.append(listener)

    async def recover(self, wanted: Collection[RunId]) -> Collection[RunId]:
        """Take over those of ``wanted`` that were submitted, and cancel all other jobs."""
        files = self._files
        await in_thread(files.marks.prepare)
        try:
            known: Mapping[str, JobReport] | None = await self._scheduler.jobs()
        except SchedulerUnavailable as error:
            # Scripts go on nevertheless, and their marks are there.
            self._note_problem(str(error))
            known = None
        for run_id in await in_thread(files.submitted, wanted, known):
            self._follow(run_id)
        if known is not None:
            names = {files.name(run_id) for run_id in wanted}
            self._doomed = {
                report.native_id
                for name, report in known.items()
                if name.startswith(files.prefix) and name not in names and report.is_live
            }
            for job in self._jobs.values():
                if (report := known.get(job.name)) is not None:
                    self._apply(job, report)
        followed = {job.name for job in self._jobs.values()}
        await in_thread(files.marks.keep_only, files.prefix, followed)
        await self.read_marks()
        return tuple(self._jobs)

    async def verify(self) -> None:
        """Check that the batch system can be used. Raises ``StartupError``."""
        try:
            await self._scheduler.verify()
        except SchedulerUnavailable as error:
            self._note_problem(str(error))

    async def self_test(self) -> None:
        """Check that the data folder can be written. Raises ``MachineFault``."""
        try:
            await in_thread(self._workspaces.check)
        except OSError as error:
            raise MachineFault(f"The data folder can't be written: {error.strerror}") from error

    async def capacity(self) -> int | None:
        """Return None: the batch system queues by itself."""
        return None

    async def submit(self, request: RunRequest) -> None:
        """Submit a job, unless the batch system has it, or it has begun.

        Raises ``RunRefused``, ``QueueFull``, ``ExecutorUnavailable``.
        """
        run_id = request.run_id
        async with self._submissions:
            if run_id in self._jobs:
                return
            try:
                in_doubt = await in_thread(self._files.write_script, run_id)
            except OSError as error:
                raise RunRefused(f"The files of the payload can't be used: {error}") from error
            try:
                native_id = await self._submit(request, in_doubt=in_doubt)
            except SchedulerUnavailable as error:
                self._note_problem(str(error))
                raise ExecutorUnavailable(f"{self._scheduler.name}: {error}") from error
            except (JobRefused, SubmitLimitReached) as error:
                await in_thread(self._files.remove_script, run_id)
                kind = RunRefused if isinstance(error, JobRefused) else QueueFull
                raise kind(f"{self._scheduler.name}: {error}") from error
            job = self._follow(run_id)
            job.native_id = native_id
        self._notify(run_id, job.state)

    async def poll(self, run_ids: Collection[RunId]) -> Mapping[RunId, RunState]:
        """Return the states of runs, as the marks and the batch system have shown them."""
        return {run_id: self._jobs[run_id].state for run_id in run_ids if run_id in self._jobs}

    async def cancel(self, run_id: RunId) -> None:
        """Keep a run from beginning, or end it: TERM, and KILL after the grace time.

        Raises ``StillRunning``.
        """
        job = self._jobs.get(run_id)
        if job is None and await in_thread(self._files.has_script, run_id):
            # Its submission was not answered.
            job = self._follow(run_id)
        if job is None or job.state.over:
            return
        job.is_ending = True
        if await in_thread(self._files.take, run_id):
            # Whenever the job begins, it ends without an effect.
            self._doomed.add(job.native_id or job.name)
            self._set(run_id, RunState(RunPhase.LOST, reason="It was cancelled before it began"))
            self._asking.wake()
            return
        try:
            await self._end(job)
        except SchedulerUnavailable as error:
            raise StillRunning(f"{self._scheduler.name}: {error}") from error

    def forget(self, run_id: RunId) -> None:
        """Drop the record of a run that is over; its marks are removed soon."""
        job = self._jobs.get(run_id)
        if job is not None and job.state.over:
            del self._jobs[run_id]
            self._forgotten.append(job.name)

    async def close(self) -> None:
        """Do nothing: the jobs go on."""

    async def read_marks(self) -> None:
        """Read the marks of jobs, and decide about those that are gone without one."""
        forgotten, self._forgotten = self._forgotten, []
        live = self._live()
        asked = {job.name: job.has_started for job in live.values()}
        if asked or forgotten:
            found = await in_thread(self._files.news, forgotten, asked)
            for run_id, job in live.items():
                if (mark := found.get(job.name)) is not None:
                    self._apply_mark(run_id, job, mark)
        now = time.monotonic()
        for run_id, job in live.items():
            if not job.state.over and now - job.gone_since >= self._grace_s(job):
                await self._decide(run_id, job)

    async def ask(self) -> None:
        """Ask the batch system for all jobs, with one command."""
        live = self._live()
        if not live and not self._doomed:
            return
        asked_at = time.monotonic()
        try:
            known = await self._scheduler.jobs()
            await self._cancel_doomed(known)
        except SchedulerUnavailable as error:
            self._note_problem(str(error))
            return
        self._note_problem("")
        for run_id, job in live.items():
            if not job.state.over and asked_at > job.known_from:
                before = job.state
                self._apply(job, known.get(job.name))
                if job.state != before:
                    self._notify(run_id, job.state)

    async def _submit(self, request: RunRequest, *, in_doubt: bool) -> str:
        """Submit a job, and return its native id; empty if that is not known yet."""
        job = self._files.job(request, self._kill_grace_s + TIME_MARGIN_S)
        if in_doubt:
            report = (await self._scheduler.jobs()).get(job.name)
            if report is not None:
                return report.native_id
            if await in_thread(self._files.is_taken, request.run_id):
                return ""
        return await self._scheduler.submit(job)

    async def _end(self, job: FollowedJob) -> None:
        """End a job whose script has begun. Raises ``StillRunning``, ``SchedulerUnavailable``."""
        give_up_at = time.monotonic() + self._timing.cancel_timeout_s
        while not job.native_id and not job.over.is_set() and time.monotonic() < give_up_at:
            self._asking.wake()
            await self._until_over(job, self._timing.cancel_ask_interval_s)
        if job.native_id and not job.over.is_set():
            await self._scheduler.terminate([job.native_id])
            await self._until_over(job, self._kill_grace_s)
        if job.native_id and not job.over.is_set():
            await self._scheduler.cancel([job.native_id])
        while not job.over.is_set():
            if time.monotonic() > give_up_at:
                raise StillRunning(f"{job.place(self._scheduler.name)} does not end")
            self._asking.wake()
            await self._until_over(job, self._timing.cancel_ask_interval_s)

    async def _until_over(self, job: FollowedJob, timeout_s: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await job.over.wait()

    async def _decide(self, run_id: RunId, job: FollowedJob) -> None:
        """Decide about a job that is gone, and whose mark does not come any more."""
        report = job.report
        if (report is None or report.phase is JobPhase.ENDED) and job.native_id:
            try:
                report = await self._scheduler.ended(job.native_id, job.name) or report
            except SchedulerUnavailable as error:
                self._note_problem(str(error))
                return
        if report is not None and report.is_live:
            job.gone_since = float("inf")
            return
        mark = await in_thread(self._files.marks.read, job.name)
        if mark is not None and mark.exit_code is not None:
            self._apply_mark(run_id, job, mark)
        else:
            self._set(run_id, job.without_mark(report, self._scheduler.name))

    def _grace_s(self, job: FollowedJob) -> float:
        report = job.report
        if report is None or report.phase is JobPhase.ENDED:
            return self._timing.mark_grace_s
        return self._timing.end_grace_s

    def _apply(self, job: FollowedJob, report: JobReport | None) -> None:
        """Apply an answer of the batch system."""
        job.report = report
        if report is None or not report.is_live:
            job.gone_since = min(job.gone_since, time.monotonic())
            return
        job.gone_since, job.native_id = float("inf"), report.native_id
        if report.phase is JobPhase.WAITING and not job.has_started:
            reason = f" ({report.reason})" if report.reason else ""
            text = f"Waits in the queue of {self._scheduler.name}{reason}"
            job.state = RunState(RunPhase.WAITING, reason=text)

    def _apply_mark(self, run_id: RunId, job: FollowedJob, mark: Mark) -> None:
        if mark.native_id.isdigit() and int(mark.native_id):
            job.native_id = mark.native_id
        if not job.has_started:
            logger.info(
                "%s has begun on %s", job.place(self._scheduler.name), mark.node or "a node"
            )
        self._set(run_id, job.by_mark(mark))

    async def _cancel_doomed(self, known: Mapping[str, JobReport]) -> None:
        """Remove jobs from the queue that must not run; each is named by its id or its name."""
        doomed = frozenset(self._doomed)
        ids = [
            report.native_id
            for name, report in known.items()
            if report.is_live and doomed.intersection((name, report.native_id))
        ]
        if ids:
            await self._scheduler.cancel(ids)
        self._doomed -= doomed

    def _follow(self, run_id: RunId) -> FollowedJob:
        job = self._jobs[run_id] = FollowedJob(self._files.name(run_id), time.monotonic())
        return job

    def _live(self) -> dict[RunId, FollowedJob]:
        return {run_id: job for run_id, job in self._jobs.items() if not job.state.over}

    def _set(self, run_id: RunId, state: RunState) -> None:
        job = self._jobs[run_id]
        job.state = state
        if state.over:
            job.over.set()
        self._notify(run_id, state)

    def _notify(self, run_id: RunId, state: RunState) -> None:
        for listener in self._listeners:
            listener(run_id, state)

    def _note_problem(self, problem: str) -> None:
        if problem and not self.problem:
            logger.warning("%s does not answer: %s", self._scheduler.name, problem)
        elif self.problem and not problem:
            logger.info("%s answers again", self._scheduler.name)
        self.problem = problem
