"""Starts the process of a script: as whom, in which cgroup, in which sandbox.

All of it blocks: call it in a thread.
"""

import errno
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from job_orchestrator.client.executors.local import processes
from job_orchestrator.client.executors.local.cgroups.manager import Cgroups, PayloadGroup
from job_orchestrator.client.executors.local.fork_server.client import ForkServer
from job_orchestrator.client.executors.local.leftovers import remove_later, remove_leftovers
from job_orchestrator.client.executors.local.sandbox import TMP, Bubblewrap
from job_orchestrator.client.executors.local.start_gate import Gate
from job_orchestrator.client.executors.local.users import ScriptUsers
from job_orchestrator.client.model import ScriptUser
from job_orchestrator.client.workspace.deferred_removal import DeferredRemoval
from job_orchestrator.client.workspace.layout import SCRIPT, Workspace
from job_orchestrator.client.workspace.ownership import give_to_user


class Process(Protocol):
    """A script's process, a child of this one."""

    @property
    def pid(self) -> int:
        """Its id; nobody else's before it was waited for."""

    def wait(self) -> int:
        """Its exit code when it has ended, negative: the signal that ended it."""

    def kill(self) -> None:
        """KILL it."""


@dataclass(frozen=True)
class Place:
    """Where a payload runs: its cgroup and its user, if it has its own. Left when it has ended."""

    group: PayloadGroup | None
    user: ScriptUser | None


@dataclass(frozen=True)
class Spawner:
    """``environment`` is what scripts see beside what belongs to their payload."""

    environment: Mapping[str, str]
    cgroups: Cgroups | None = None
    users: ScriptUsers | None = None
    sandbox: Bubblewrap | None = None
    large_leftovers: DeferredRemoval = field(
        default_factory=lambda: DeferredRemoval("large leftovers")
    )

    def take_place(self, workspace: Workspace) -> Place:
        """Make a payload its place. Raises ``OSError``."""
        user = self.users.take() if self.users is not None else None
        try:
            if user is not None:
                give_to_user(workspace.root, (workspace.work, workspace.scratch), user)
            group = self.cgroups.make(workspace.root.name) if self.cgroups is not None else None
        except BaseException:
            self.leave(Place(None, user))
            raise
        return Place(group, user)

    def leave(self, place: Place) -> None:
        """Nothing runs there any more."""
        if place.group is not None:
            place.group.remove()
        if place.user is not None and self.users is not None:
            self._remove_leftovers(self.own_ids & {place.user.uid})
            self.users.give_back(place.user)

    @property
    def own_ids(self) -> frozenset[int]:
        """Users as whom nothing runs but payloads."""
        return self.users.own_ids if self.users is not None else frozenset()

    def remove_all_leftovers(self) -> None:
        """Remove what payloads left outside their folders, of this life or an earlier one.

        None may run.
        """
        self._remove_leftovers(self.own_ids)
        if self.own_ids:
            remove_later(self.large_leftovers)

    def _remove_leftovers(self, uids: Set[int]) -> None:
        if uids and self.sandbox is None:  # in which nothing can be left
            remove_leftovers(uids, self.large_leftovers)

    def start(self, workspace: Workspace, place: Place, stdout: int, stderr: int) -> Process:
        """Start ``bash run.sh``. Raises ``OSError``."""
        command: Sequence[str] = [self._bash(), SCRIPT]
        if self.sandbox is not None:
            command = self.sandbox.wrap(workspace, command)
        if place.user is not None:
            os.fchown(stdout, *place.user)
            os.fchown(stderr, *place.user)
        script = _Script(
            command, workspace.work, self._environment_of(workspace), stdout, stderr, place.user
        )
        if place.group is None:
            return script.start(subprocess.DEVNULL)
        if self.cgroups is not None and self.cgroups.fork_server is not None:
            return script.born_in(place.group, self.cgroups.fork_server)
        return script.moved_to(place.group)

    def _bash(self) -> str:
        """That of the administrator's PATH. Raises ``OSError`` here, and not somewhere inside."""
        bash = shutil.which("bash", path=self.environment["PATH"])
        if bash is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "bash")
        return bash

    def _environment_of(self, workspace: Workspace) -> dict[str, str]:
        return {
            **self.environment,
            "HOME": str(workspace.work),
            "TMPDIR": str(workspace.scratch if self.sandbox is None else TMP),
            processes.MARK: str(workspace.root),
        }


@dataclass(frozen=True)
class _Script:
    """What is started, and what it is given. Each way to start it raises ``OSError``."""

    command: Sequence[str]
    folder: Path
    environment: Mapping[str, str]
    stdout: int
    stderr: int
    user: ScriptUser | None

    def born_in(self, group: PayloadGroup, fork_server: ForkServer) -> Process:
        """Started inside a cgroup."""
        try:
            return fork_server.start(
                self.command,
                group=group.main.folder,
                folder=self.folder,
                environment=self.environment,
                stdout=self.stdout,
                stderr=self.stderr,
                user=self.user,
            )
        except (TimeoutError, ConnectionError):
            group.main.kill()
            raise

    def moved_to(self, group: PayloadGroup) -> Process:
        """Started outside, and held back until it is in its cgroup."""
        with Gate() as gate:
            process = replace(self, command=gate.held(self.command)).start(gate.descriptor)
            try:
                group.add(process.pid)
            except OSError:
                process.kill()
                process.wait()
                raise
            gate.open()
        return process

    def start(self, stdin: int) -> Process:
        """Started where this process is."""
        user = self.user
        if user is not None:
            processes.forbid_new_privileges()
        return subprocess.Popen(  # noqa: S603 (running it is what the client is for)
            self.command,
            cwd=self.folder,
            env=self.environment,
            stdin=stdin,
            stdout=self.stdout,
            stderr=self.stderr,
            start_new_session=True,
            user=user.uid if user is not None else None,
            group=user.gid if user is not None else None,
            extra_groups=[] if user is not None else None,
        )
