"""Grid Engine, through its commands."""

import math
import re
import xml.etree.ElementTree as ET
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

_UNAVAILABLE = re.compile(r"unable to (contact|send)|can't connect|commlib error", re.IGNORECASE)
_LIMIT = re.compile(r"job limit|max_u_jobs|max_jobs|would exceed", re.IGNORECASE)
_ENDINGS = {0: JobPhase.ENDED, 37: JobPhase.TIMED_OUT, 100: JobPhase.CANCELLED}
"""Phases by the field ``failed`` of ``qacct``."""


@dataclass(frozen=True)
class GridEngine:
    """Jobs of one user in Grid Engine. ``options`` are further options of ``qsub``.

    A job that asks for CPUs needs a parallel environment, which sites name: it is in ``options``.
    """

    commands: Commands
    options: Sequence[str] = ()
    name: str = "Grid Engine"

    async def verify(self) -> None:
        """See ``Scheduler.verify``."""
        try:
            await self.jobs()
        except CommandFailed as error:
            raise StartupError(f"EXECUTOR=gridengine cannot be used here: {error}") from error

    async def submit(self, job: BatchJob) -> str:
        """See ``Scheduler.submit``."""
        command = ["qsub", "-terse", "-r", "n", "-j", "y", "-notify", "-S", "/bin/bash"]
        command += ["-N", job.name, "-o", str(job.log), "-wd", str(job.folder)]
        if job.time_limit_s is not None:
            command += ["-l", f"h_rt={math.ceil(job.time_limit_s)}"]
        if job.resources.memory_bytes:
            command += ["-l", f"h_vmem={job.resources.memory_bytes}"]
        try:
            answer = await self._run(*command, *self.options, str(job.script))
        except CommandFailed as error:
            kind = SubmitLimitReached if _LIMIT.search(str(error)) else JobRefused
            raise kind(str(error)) from error
        return answer.strip().partition(".")[0]

    async def jobs(self) -> Mapping[str, JobReport]:
        """See ``Scheduler.jobs``. As XML, because names are cut off in the table."""
        answer = await self._run("qstat", "-xml", "-u", self.commands.environment["USER"])
        jobs = ET.fromstring(answer).iter("job_list")  # noqa: S314 (the output of qstat)
        return {
            job.findtext("JB_name", ""): _report(
                job.findtext("JB_job_number", ""), job.findtext("state", "")
            )
            for job in jobs
        }

    async def ended(self, native_id: str, name: str) -> JobReport | None:
        """See ``Scheduler.ended``. The accounting has a job only some seconds after its end."""
        try:
            answer = await self._run("qacct", "-j", native_id)
        except CommandFailed:
            return None
        values = dict(re.findall(r"^(\w+)\s+(.*?)\s*$", answer, re.MULTILINE))
        if values.get("jobname") != name:
            return None
        failed, code = values.get("failed", "").split()[:1], values.get("exit_status", "")
        phase = _ENDINGS.get(int(failed[0]) if failed and failed[0].isdigit() else 0)
        return JobReport(
            native_id,
            phase or JobPhase.EVICTED,
            f"failed {values.get('failed', '')}",
            exit_code=int(code) if code.isdigit() else None,
        )

    async def terminate(self, native_ids: Collection[str]) -> None:
        """See ``Scheduler.terminate``. The system has only ``qdel``, which sends USR2 first."""
        await self.cancel(native_ids)

    async def cancel(self, native_ids: Collection[str]) -> None:
        """See ``Scheduler.cancel``."""
        # It fails if one of the jobs has ended; whether all have is asked for anyway.
        with suppress(CommandFailed):
            await self._run("qdel", *native_ids)

    async def _run(self, *command: str) -> str:
        try:
            return await self.commands.run(*command)
        except CommandFailed as error:
            if _UNAVAILABLE.search(str(error)):
                raise SchedulerUnavailable(str(error)) from error
            raise


def _report(native_id: str, letters: str) -> JobReport:
    """Return a job with the letters of its state; ``E`` is an error that only a person clears."""
    if letters.startswith("E"):
        phase = JobPhase.EVICTED
    elif "r" in letters or "t" in letters:
        phase = JobPhase.RUNNING
    else:
        phase = JobPhase.CANCELLED if "d" in letters else JobPhase.WAITING
    return JobReport(native_id, phase, letters)
