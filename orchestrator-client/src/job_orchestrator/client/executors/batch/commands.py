"""Commands of a batch system, with a time-out and a clean environment."""

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from job_orchestrator.client.executors.batch.scheduler import SchedulerUnavailable
from job_orchestrator.common.errors import DomainError
from job_orchestrator.common.runtime.threads import in_thread

MAX_ERROR_LENGTH = 300


class CommandFailed(DomainError):
    """A command ended with an error; the message is its error output."""


@dataclass(frozen=True)
class Commands:
    """Runs commands with ``environment`` and no other variable.

    Variables such as SQUEUE_FORMAT would change what the commands print, and those of SBATCH_* what
    they do. A command that takes longer than ``timeout_s`` counts as unanswered: those of Slurm
    wait rather than fail when their controller is gone.
    """

    environment: Mapping[str, str]
    timeout_s: float = 60.0

    async def run(self, *command: str) -> str:
        """Run a command, and return its output.

        Raises ``CommandFailed``, ``SchedulerUnavailable``.
        """
        return await in_thread(self._run, command)

    def _run(self, command: tuple[str, ...]) -> str:
        try:
            done = subprocess.run(  # noqa: S603
                command,
                env={**self.environment, "LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=self.timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise SchedulerUnavailable(
                f"{command[0]} did not answer within {self.timeout_s:g} s"
            ) from error
        except OSError as error:
            raise CommandFailed(f"{command[0]} can't be started: {error.strerror}") from error
        if done.returncode != 0:
            text = " ".join(done.stderr.decode("utf-8", "replace").split())
            raise CommandFailed(
                text[:MAX_ERROR_LENGTH] or f"{command[0]} ended with code {done.returncode}"
            )
        return done.stdout.decode("utf-8", "replace")
