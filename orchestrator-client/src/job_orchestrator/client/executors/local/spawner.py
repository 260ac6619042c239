"""Starts the process of a script: as a user, in a cgroup, in a sandbox.

All methods except ``start`` block.
"""

import errno
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import cache
from typing import Protocol

from job_orchestrator.client.executors.local import processes
from job_orchestrator.client.executors.local.cgroups.payload_cgroups import (
    PayloadCgroup,
    PayloadCgroups,
)
from job_orchestrator.client.executors.local.cgroups.start_gate import StartGate
from job_orchestrator.client.executors.local.child import CgroupStarter, Program
from job_orchestrator.client.executors.local.leftovers import (
    remove_leftovers,
    resume_unfinished_removals,
)
from job_orchestrator.client.executors.local.sandbox import TMP, Bubblewrap
from job_orchestrator.client.executors.local.users import UserPool
from job_orchestrator.client.model import NO_SHARE, ScriptUser, Share
from job_orchestrator.client.workspace.deferred_removal import DeferredRemoval
from job_orchestrator.client.workspace.layout import Workspace
from job_orchestrator.client.workspace.ownership import give_to_user
from job_orchestrator.client.workspace.shebang import script_command
from job_orchestrator.common.messages.arrays import ArrayTask
from job_orchestrator.common.runtime.threads import in_thread


class Process(Protocol):
    """Process of a script, a child of this process."""

    @property
    def pid(self) -> int:
        """Process id, which the kernel does not reuse before ``wait`` has returned."""

    def wait(self) -> int:
        """Return the exit code when the process has ended; negative: the signal that ended it."""

    def kill(self) -> None:
        """Send KILL."""


@dataclass(frozen=True)
class ExecutionSlot:
    """Resources leased to one payload while it runs: cgroup and user where used, and its share.

    ``task`` is the task of an array that it is.
    """

    cgroup: PayloadCgroup | None
    user: ScriptUser | None
    share: Share = NO_SHARE
    task: ArrayTask | None = None


@dataclass(frozen=True)
class Spawner:
    """Starts scripts with the configured means of isolation.

    ``environment`` holds the variables that all scripts see, in addition to those of their payload.
    """

    environment: Mapping[str, str]
    cgroups: PayloadCgroups | None
    users: UserPool | None
    sandbox: Bubblewrap | None
    large_leftovers: DeferredRemoval

    def acquire_slot(
        self, workspace: Workspace, share: Share = NO_SHARE, task: ArrayTask | None = None
    ) -> ExecutionSlot:
        """Lease a user and create a cgroup for a payload. Raises ``OSError``."""
        user = self.users.acquire() if self.users is not None else None
        try:
            if user is not None:
                give_to_user(workspace.root, (workspace.work, workspace.scratch), user)
            cgroup = None
            if self.cgroups is not None:
                cgroup = self.cgroups.create(workspace.root.name, share)
        except BaseException:
            self.release_slot(ExecutionSlot(None, user))
            raise
        return ExecutionSlot(cgroup, user, share, task)

    def release_slot(self, slot: ExecutionSlot) -> None:
        """Remove the cgroup of a payload that has ended, and end the lease of its user."""
        if slot.cgroup is not None:
            slot.cgroup.remove()
        if slot.user is not None and self.users is not None:
            self._remove_leftovers(self.exclusive_uids & {slot.user.uid})
            self.users.release(slot.user)

    @property
    def is_short(self) -> bool:
        """True if slots are acquired and released within microseconds: no user owns any files."""
        return self.users is None

    @property
    def exclusive_uids(self) -> frozenset[int]:
        """Ids of users that run nothing but payloads."""
        return self.users.exclusive_uids if self.users is not None else frozenset()

    def remove_all_leftovers(self) -> None:
        """Remove the files that payloads left outside their workspaces. No payload may run."""
        self._remove_leftovers(self.exclusive_uids)
        if self.exclusive_uids:
            resume_unfinished_removals(self.large_leftovers)

    def program(
        self, workspace: Workspace, slot: ExecutionSlot, stdout: int, stderr: int
    ) -> Program:
        """Return bash with run.sh, as its first line says. Raises ``OSError``."""
        command: Sequence[str] = script_command(workspace, self._bash())
        if self.sandbox is not None:
            command = self.sandbox.wrap(workspace, command)
        if slot.user is not None:
            os.fchown(stdout, *slot.user)
            os.fchown(stderr, *slot.user)
        return Program(
            command,
            workspace.work,
            self._environment_of(workspace, slot),
            stdout,
            stderr,
            slot.user,
        )

    async def start(self, program: Program, slot: ExecutionSlot) -> Process:
        """Start a program. Raises ``OSError``."""
        if slot.cgroup is None:
            return await in_thread(_start, program, subprocess.DEVNULL)
        starter = self.cgroups.starter if self.cgroups is not None else None
        # A starter puts a process into one cgroup, and moving it later would be too late.
        if starter is not None and len(slot.cgroup.cgroups) == 1:
            return await _start_in(program, slot.cgroup, starter)
        return await in_thread(_start_and_move_to, program, slot.cgroup)

    def _remove_leftovers(self, uids: Set[int]) -> None:
        if uids and self.sandbox is None:  # nothing is left of a sandbox
            remove_leftovers(uids, self.large_leftovers)

    def _bash(self) -> str:
        """Find bash in the PATH of the settings.

        Raises ``FileNotFoundError``, which names bash. Otherwise the error would come from the
        program that starts bash, such as the sandbox.
        """
        path = self.environment["PATH"]
        bash = _find_bash(path)
        if bash is None or not os.access(bash, os.X_OK):  # it may be installed or moved at any time
            _find_bash.cache_clear()
            bash = _find_bash(path)
        if bash is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "bash")
        return bash

    def _environment_of(self, workspace: Workspace, slot: ExecutionSlot) -> dict[str, str]:
        return {
            **self.environment,
            **_variables_of(slot.share),
            **(slot.task.variables() if slot.task is not None else {}),
            "HOME": str(workspace.work),
            "TMPDIR": str(workspace.scratch if self.sandbox is None else TMP),
            processes.WORKSPACE_VARIABLE: str(workspace.root),
        }


@cache
def _find_bash(path: str) -> str | None:
    return shutil.which("bash", path=path)


def _variables_of(share: Share) -> dict[str, str]:
    """Return the variables by which programs learn how many threads and which GPUs are theirs.

    A job that asks for nothing sees what the machine has. One that asks for other resources has no
    GPU.
    """
    if not share.any:
        return {}
    gpus = {"CUDA_VISIBLE_DEVICES": ",".join(map(str, share.gpus))}
    threads = {"OMP_NUM_THREADS": str(max(1, int(share.cpus)))} if share.cpus else {}
    return gpus | threads


async def _start_in(program: Program, cgroup: PayloadCgroup, starter: CgroupStarter) -> Process:
    """Start a program directly in a cgroup. Raises ``OSError``."""
    try:
        return await starter.start_in_loop(program, cgroup.main.folder)
    except (TimeoutError, ConnectionError):
        await in_thread(cgroup.main.kill)
        raise


def _start_and_move_to(program: Program, cgroup: PayloadCgroup) -> Process:
    """Start a program in this process's cgroup, and hold it back until it has been moved.

    Raises ``OSError``.
    """
    with StartGate() as gate:
        process = _start(replace(program, command=gate.wrap(program.command)), gate.descriptor)
        try:
            cgroup.add(process.pid)
        except OSError:
            process.kill()
            process.wait()
            raise
        gate.open()
    return process


def _start(program: Program, stdin: int) -> Process:
    """Start a program in the cgroup of this process. Raises ``OSError``."""
    user = program.user
    if user is not None:
        processes.forbid_new_privileges()
    return subprocess.Popen(  # noqa: S603 (to run the user's script is the purpose of jo-client)
        program.command,
        cwd=program.folder,
        env=program.environment,
        stdin=stdin,
        stdout=program.stdout,
        stderr=program.stderr,
        start_new_session=True,
        user=user.uid if user is not None else None,
        group=user.gid if user is not None else None,
        extra_groups=[] if user is not None else None,
    )
