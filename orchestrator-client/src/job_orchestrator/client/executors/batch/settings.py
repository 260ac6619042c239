"""Settings of jo-client that select the executor, and those of batch systems."""

import os
import pwd
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from job_orchestrator.client.executors.local.settings import ExecutionSettings
from job_orchestrator.common.config.kinds import Choice, Kind, NotAllowed
from job_orchestrator.common.config.reader import SettingsReader
from job_orchestrator.common.config.settings import no_default, setting, setting_of

DEFAULT_SLOTS = 100
"""Jobs in the queue of a batch system that did not get another number."""

_PASSED = ("PATH", "HOME", "SLURM_CONF")
_PASSED_PREFIX = "SGE_"


class ExecutorKind(StrEnum):
    """Way of running payloads."""

    LOCAL = "local"
    SLURM = "slurm"
    GRID_ENGINE = "gridengine"


@dataclass(frozen=True)
class Words(Kind[tuple[str, ...]]):
    """Words as in a shell, where quotes hold blanks together."""

    metavar = "OPTIONS"

    def parse(self, text: str) -> tuple[str, ...]:
        """Split the words."""
        try:
            return tuple(shlex.split(text))
        except ValueError as error:
            raise NotAllowed("words as in a shell, with closed quotes") from error


@dataclass(frozen=True, kw_only=True)
class BatchSettings:
    """Settings of the executor, and of batch systems."""

    executor: ExecutorKind = setting(
        "EXECUTOR",
        Choice({kind.value: kind for kind in ExecutorKind}),
        default="local",
        help="Where payloads run: local (processes of this machine), or as jobs of slurm or"
        " gridengine",
    )
    options: tuple[str, ...] = setting(
        "BATCH_OPTIONS",
        Words(),
        default=no_default(()),
        help="Further options of sbatch or qsub, such as --partition=long --account=portal",
    )

    @property
    def is_used(self) -> bool:
        """True if payloads run through a batch system."""
        return self.executor is not ExecutorKind.LOCAL


def check_executor(
    reader: SettingsReader, batch: BatchSettings, execution: ExecutionSettings
) -> None:
    """Refuse settings of the local executor for another one. Raises ``SettingError``."""
    asked = {
        "run_as": bool(execution.run_as),
        "sandbox": execution.sandbox,
        "memory_limit_bytes": execution.limits.memory_bytes > 0,
        "pids_limit": execution.limits.pids > 0,
        "cpu_limit": execution.limits.cpus > 0,
        "cgroups": execution.cgroups == "required",
    }
    for attribute, is_asked in asked.items():
        if batch.is_used and is_asked:
            allowed = f"unset with EXECUTOR={batch.executor}, which starts scripts elsewhere"
            raise reader.refusal(setting_of(ExecutionSettings, attribute), allowed)


def command_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Choose the variables that the commands of a batch system see."""
    passed = {
        name: text
        for name, text in environment.items()
        if name in _PASSED or name.startswith(_PASSED_PREFIX)
    }
    return {**passed, "USER": pwd.getpwuid(os.geteuid()).pw_name}
