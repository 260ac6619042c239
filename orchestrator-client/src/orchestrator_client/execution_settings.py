"""Those settings of jo-client that say how scripts are contained and what they may use."""

from dataclasses import dataclass
from typing import Literal, cast

from orchestrator_common.env import Option, SettingsReader

CgroupsMode = Literal["auto", "off", "required"]

EXECUTION_OPTIONS = (
    Option("CGROUPS", "auto", "A cgroup for each payload: auto (where possible), off or required"),
    Option("MEMORY_LIMIT", "none", "Memory of a payload; needs cgroups"),
    Option("PIDS_LIMIT", "none", "Processes and threads of a payload; needs cgroups"),
    Option("CPU_LIMIT", "none", "CPUs that a payload may use, such as 1.5; needs cgroups"),
)


@dataclass(frozen=True)
class Limits:
    """What one payload may use, all its processes together. 0: no limit."""

    memory_bytes: int = 0
    pids: int = 0
    cpus: float = 0.0


@dataclass(frozen=True)
class ExecutionSettings:
    """All of them, checked."""

    cgroups: CgroupsMode = "auto"
    limits: Limits = Limits()


def read_execution(reader: SettingsReader) -> ExecutionSettings:
    """Read and check them. Raises ``StartupError``."""
    return ExecutionSettings(
        cgroups=cast(CgroupsMode, reader.choice("CGROUPS", "auto", ("auto", "off", "required"))),
        limits=Limits(
            memory_bytes=reader.size_bytes("MEMORY_LIMIT", 0),
            pids=reader.integer("PIDS_LIMIT", 0, minimum=0, maximum=4_000_000),
            cpus=reader.number("CPU_LIMIT", 0.0, maximum=10_000.0),
        ),
    )
