"""Those settings of jo-client that say how scripts are contained and what they may use."""

import grp
import pwd
import re
from dataclasses import dataclass
from typing import Literal, cast

from job_orchestrator.client.model import NO_LIMITS, Limits, ScriptUser
from job_orchestrator.common.config.reader import Option, SettingError, SettingsReader

CgroupsMode = Literal["auto", "off", "required"]

EXECUTION_OPTIONS = (
    Option("CGROUPS", "auto", "A cgroup for each payload: auto (where possible), off or required"),
    Option("MEMORY_LIMIT", "none", "Memory of a payload; needs cgroups"),
    Option("PIDS_LIMIT", "none", "Processes and threads of a payload; needs cgroups"),
    Option("CPU_LIMIT", "none", "CPUs that a payload may use, such as 1.5; needs cgroups"),
    Option("RUN_AS", "none", "User that scripts run as, or a user id for each slot: 30000-30015"),
    Option("SANDBOX", "none", "none, or bwrap: scripts run in bubblewrap"),
    Option("SANDBOX_NETWORK", "0", "1: scripts in the sandbox may use the network"),
    Option("SANDBOX_TMP_SIZE", "1GB", "Size of /tmp, and of /dev/shm, in the sandbox"),
)

MIN_MEMORY_BYTES = 16 * 1024 * 1024
"""With less not even bash and a small program in it can be relied on to start."""


@dataclass(frozen=True)
class ExecutionSettings:
    """All of them, checked. Sizes in bytes.

    ``run_as`` is one user for all scripts, or several of which each runs one at a time; none: the
    client's own.
    """

    cgroups: CgroupsMode = "auto"
    limits: Limits = NO_LIMITS
    run_as: tuple[ScriptUser, ...] = ()
    sandbox: bool = False
    sandbox_network: bool = False
    sandbox_tmp_bytes: int = 10**9


def read_execution(reader: SettingsReader, slots: int) -> ExecutionSettings:
    """Read and check them. Raises ``StartupError``."""
    return ExecutionSettings(
        cgroups=cast(CgroupsMode, reader.choice("CGROUPS", "auto", ("auto", "off", "required"))),
        limits=Limits(
            memory_bytes=reader.size_bytes("MEMORY_LIMIT", 0, least=MIN_MEMORY_BYTES),
            pids=reader.integer("PIDS_LIMIT", 0, minimum=0, maximum=4_000_000),
            cpus=reader.number("CPU_LIMIT", 0.0, maximum=10_000.0),
        ),
        run_as=_run_as(reader, slots),
        sandbox=reader.choice("SANDBOX", "none", ("none", "bwrap")) == "bwrap",
        sandbox_network=reader.switch("SANDBOX_NETWORK", False),
        sandbox_tmp_bytes=reader.size_bytes("SANDBOX_TMP_SIZE", 10**9),
    )


def _run_as(reader: SettingsReader, slots: int) -> tuple[ScriptUser, ...]:
    held = reader.text("RUN_AS")
    if held is None:
        return ()
    if ids := re.fullmatch(r"(\d{1,9})-(\d{1,9})", held):
        first, last = int(ids[1]), int(ids[2])
        if first == 0 or not slots <= last - first + 1 <= 1_000_000:
            allowed = f"a range of user ids without 0, at least {slots}: one for each slot"
            raise SettingError("RUN_AS", held, allowed)
        return tuple(ScriptUser(uid, uid) for uid in range(first, last + 1))
    user, _, group = held.partition(":")
    try:
        found = _user(user, group)
    except (KeyError, OverflowError):
        found = ScriptUser(0, 0)
    if found.uid == 0 or found.gid == 0:
        allowed = "a user of this machine other than root (USER or USER:GROUP), or a range of ids"
        raise SettingError("RUN_AS", held, allowed)
    return (found,)


def _user(user: str, group: str) -> ScriptUser:
    """The user of a name or id, with a group of its own choice or the given one."""
    if user.isdecimal() and group:
        uid, own_gid = int(user), 0
    else:
        entry = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
        uid, own_gid = entry.pw_uid, entry.pw_gid
    if not group:
        return ScriptUser(uid, own_gid)
    return ScriptUser(uid, int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid)
