"""Slurm, through its commands."""

import math
import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from job_orchestrator.client.executors.batch.commands import CommandFailed, Commands
from job_orchestrator.client.executors.batch.scheduler import (
    BatchJob,
    JobPhase,
    JobRefused,
    JobReport,
    SchedulerUnavailable,
    SubmitLimitReached,
)
from job_orchestrator.common.errors import StartupError

_WORDS: Mapping[JobPhase, str] = {
    JobPhase.WAITING: "PENDING CONFIGURING REQUEUED REQUEUE_FED REQUEUE_HOLD RESV_DEL_HOLD"
    " SPECIAL_EXIT",
    JobPhase.ENDED: "COMPLETED FAILED",
    JobPhase.CANCELLED: "CANCELLED",
    JobPhase.TIMED_OUT: "TIMEOUT DEADLINE",
    JobPhase.OUT_OF_MEMORY: "OUT_OF_MEMORY",
    JobPhase.EVICTED: "NODE_FAIL BOOT_FAIL PREEMPTED REVOKED LAUNCH_FAILED",
}
_PHASES = {word: phase for phase, words in _WORDS.items() for word in words.split()}

_UNAVAILABLE = re.compile(
    r"unable to contact|socket timed out|connection (refused|timed out|failure)|zero bytes"
    r"|transport endpoint|munge|protocol authentication|backup controller"
    r"|resource temporarily unavailable|unexpected message",
    re.IGNORECASE,
)
_LIMIT = re.compile(
    r"temporarily unable to accept|MaxSubmitJob|violates accounting/QOS policy", re.IGNORECASE
)


@dataclass(frozen=True)
class Slurm:
    """Jobs of one user in Slurm. ``options`` are further options of ``sbatch``."""

    commands: Commands
    options: Sequence[str] = ()
    name: str = "Slurm"

    async def verify(self) -> None:
        """See ``Scheduler.verify``."""
        try:
            await self._run("sbatch", "--version")
            await self.jobs()
        except CommandFailed as error:
            raise StartupError(f"EXECUTOR=slurm cannot be used here: {error}") from error

    async def submit(self, job: BatchJob) -> str:
        """See ``Scheduler.submit``.

        ``--export`` is ALL, and the environment of ``sbatch`` itself is clean: with any other value
        slurmd loads the user's login environment, which makes jobs ten times slower to start.
        """
        command = [
            "sbatch",
            "--parsable",
            "--no-requeue",
            "--export=ALL",
            "--open-mode=append",
            "--ntasks=1",
            f"--job-name={job.name}",
            f"--output={job.log}",
            f"--chdir={job.folder}",
        ]
        wanted = job.resources
        if wanted.cpus:
            command.append(f"--cpus-per-task={math.ceil(wanted.cpus)}")
        if wanted.memory_bytes:
            command.append(f"--mem={math.ceil(wanted.memory_bytes / 1024)}K")
        if wanted.gpus:
            command.append(f"--gpus={wanted.gpus}")
        if job.time_limit_s is not None:
            command.append(f"--time={math.ceil(job.time_limit_s / 60)}")
        try:
            answer = await self._run(*command, *self.options, str(job.script))
        except CommandFailed as error:
            if _LIMIT.search(str(error)):
                raise SubmitLimitReached(str(error)) from error
            raise JobRefused(str(error)) from error
        return answer.strip().partition(";")[0]

    async def jobs(self) -> Mapping[str, JobReport]:
        """See ``Scheduler.jobs``. Of two jobs with one name, the one that runs counts."""
        answer = await self._run(
            "squeue", "--noheader", "--me", "--states=all", "--format=%i|%T|%r|%j"
        )
        found: dict[str, JobReport] = {}
        for line in answer.splitlines():
            native_id, word, reason, name = line.split("|", 3)
            report = _report(native_id, word, reason)
            known = found.get(name)
            if known is None or (report.is_live and not known.is_live):
                found[name] = report
        return found

    async def ended(self, native_id: str, name: str) -> JobReport | None:
        """See ``Scheduler.ended``."""
        try:
            answer = await self._run("scontrol", "--oneliner", "show", "job", native_id)
        except CommandFailed:
            return None
        values = dict(re.findall(r"(\w+)=(\S*)", answer))
        if values.get("JobName") != name:
            return None
        code, _, number = values.get("ExitCode", "").partition(":")
        exit_code = None
        if code.isdigit() and number.isdigit():
            exit_code = 128 + int(number) if int(number) else int(code)
        return _report(native_id, values.get("JobState", ""), values.get("Reason", ""), exit_code)

    async def terminate(self, native_ids: Collection[str]) -> None:
        """See ``Scheduler.terminate``. Without ``--full``, only job steps get the signal."""
        await self._cancel("--full", "--signal=TERM", *native_ids)

    async def cancel(self, native_ids: Collection[str]) -> None:
        """See ``Scheduler.cancel``."""
        await self._cancel(*native_ids)

    async def _cancel(self, *arguments: str) -> None:
        # It fails if one of the jobs has ended; whether all have is asked for anyway.
        with suppress(CommandFailed):
            await self._run("scancel", *arguments)

    async def _run(self, *command: str) -> str:
        try:
            return await self.commands.run(*command)
        except CommandFailed as error:
            if _UNAVAILABLE.search(str(error)) and not _LIMIT.search(str(error)):
                raise SchedulerUnavailable(str(error)) from error
            raise


def _report(native_id: str, word: str, reason: str, exit_code: int | None = None) -> JobReport:
    phase = _PHASES.get(word, JobPhase.RUNNING)
    return JobReport(native_id, phase, word, "" if reason == "None" else reason, exit_code)
