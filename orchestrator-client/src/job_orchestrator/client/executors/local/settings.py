"""Settings of jo-client that confine scripts: cgroups, limits, users and the sandbox."""

import grp
import os
import pwd
import re
from dataclasses import dataclass
from typing import Literal

from job_orchestrator.client.model import Limits, ScriptUser
from job_orchestrator.common.config.kinds import (
    Choice,
    Integer,
    Kind,
    NotAllowed,
    Number,
    Size,
    Switch,
    one_of,
)
from job_orchestrator.common.config.reader import SettingsReader
from job_orchestrator.common.config.settings import no_default, setting, setting_of

CgroupsMode = Literal["auto", "off", "required"]

MIN_MEMORY_BYTES = 16 * 1024 * 1024
"""With less memory, bash and a small program may not even start."""

_MAX_USERS = 1_000_000
_UID_RANGE = re.compile(r"(\d{1,9})-(\d{1,9})")


@dataclass(frozen=True)
class ScriptUserList(Kind[tuple[ScriptUser, ...]]):
    """One user, or a range of user ids of which each runs one script at a time."""

    metavar = "USER"

    def parse(self, text: str) -> tuple[ScriptUser, ...]:
        """Look up the user or expand the range; root is never allowed."""
        if ids := _UID_RANGE.fullmatch(text):
            first, last = int(ids[1]), int(ids[2])
            if first == 0 or not 1 <= last - first + 1 <= _MAX_USERS:
                raise NotAllowed(f"a range of at most {_MAX_USERS} user ids without 0")
            return tuple(ScriptUser(uid, uid) for uid in range(first, last + 1))
        user, _, group = text.partition(":")
        try:
            found = _script_user(user, group)
        except (KeyError, OverflowError):
            found = ScriptUser(0, 0)
        if found.uid == 0 or found.gid == 0:
            raise NotAllowed(
                "a user of this machine other than root (USER or USER:GROUP), or a range of ids"
            )
        return (found,)


@dataclass(frozen=True, kw_only=True)
class ExecutionSettings:
    """Settings of the local executor. Sizes are in bytes, and 0 is no limit.

    ``run_as`` is empty if scripts run as the user of jo-client.
    """

    cgroups: CgroupsMode = setting(
        "CGROUPS",
        one_of("auto", "off", "required"),
        default="auto",
        help="One cgroup for each payload: auto (where possible), off or required",
    )
    memory_limit_bytes: int = setting(
        "MEMORY_LIMIT",
        Size(minimum=MIN_MEMORY_BYTES),
        default=no_default(0),
        help="Maximum memory of a payload; needs cgroups",
    )
    pids_limit: int = setting(
        "PIDS_LIMIT",
        Integer(0, 4_000_000),
        default=no_default(0),
        help="Maximum number of processes and threads of a payload; needs cgroups",
    )
    cpu_limit: float = setting(
        "CPU_LIMIT",
        Number(10_000.0),
        default=no_default(0.0),
        help="Maximum number of CPUs of a payload, such as 1.5; needs cgroups",
    )
    run_as: tuple[ScriptUser, ...] = setting(
        "RUN_AS",
        ScriptUserList(),
        default=no_default(()),
        help="User that scripts run as (USER or USER:GROUP), or a range with one user id for each"
        " slot: 30000-30015",
    )
    sandbox: bool = setting(
        "SANDBOX",
        Choice({"none": False, "bwrap": True}),
        default="none",
        help="bwrap: run scripts in a bubblewrap sandbox; none: without a sandbox",
    )
    sandbox_network: bool = setting(
        "SANDBOX_NETWORK",
        Switch(),
        default="0",
        help="1: scripts in the sandbox can use the network",
    )
    sandbox_tmp_bytes: int = setting(
        "SANDBOX_TMP_SIZE",
        Size(),
        default="1GB",
        help="Size of /tmp and of /dev/shm, each, in the sandbox",
    )

    @property
    def warnings(self) -> tuple[str, ...]:
        """Dangers of these settings, for administrators of the client and of its servers."""
        if os.geteuid() != 0 or self.run_as:
            return ()
        return (
            "Jobs run as root without RUN_AS: each can read and change all files of the machine,"
            " and end jo-client. Set RUN_AS, or start jo-client as another user",
        )

    @property
    def limits(self) -> Limits:
        """Limits of each payload."""
        return Limits(self.memory_limit_bytes, self.pids_limit, self.cpu_limit)


def check_users(reader: SettingsReader, execution: ExecutionSettings, slots: int) -> None:
    """Check that a range of user ids has one id for each slot. Raises ``SettingError``."""
    run_as = setting_of(ExecutionSettings, "run_as")
    text = reader.text(run_as.name)
    if text and _UID_RANGE.fullmatch(text) and len(execution.run_as) < slots:
        allowed = f"a range of at least {slots} user ids without 0: one for each slot"
        raise reader.refusal(run_as, allowed)


def _script_user(user: str, group: str) -> ScriptUser:
    """Find a user by name or id, with the given group or the user's own.

    Raises ``KeyError`` or ``OverflowError`` if there is no such user or group.
    """
    if user.isdecimal() and group:
        uid, own_gid = int(user), 0
    else:
        entry = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
        uid, own_gid = entry.pw_uid, entry.pw_gid
    if not group:
        return ScriptUser(uid, own_gid)
    return ScriptUser(uid, int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid)
