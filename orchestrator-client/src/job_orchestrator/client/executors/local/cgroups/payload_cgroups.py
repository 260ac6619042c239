"""Cgroups of payloads: which hierarchies can be used here, and one cgroup for each payload."""

import logging
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from job_orchestrator.client.errors import CgroupsUnavailable, StillRunning
from job_orchestrator.client.executors.local.cgroups.cgroup import Cgroup
from job_orchestrator.client.executors.local.cgroups.hierarchy import (
    Hierarchy,
    delegate,
    visible_hierarchies,
)
from job_orchestrator.client.executors.local.cgroups.limits import (
    limit_reached,
    needed_controllers,
    set_limits,
)
from job_orchestrator.client.executors.local.cgroups.start_gate import StartGate
from job_orchestrator.client.executors.local.cgroups.starters import open_starter
from job_orchestrator.client.executors.local.child import CgroupStarter
from job_orchestrator.client.executors.local.settings import ExecutionSettings
from job_orchestrator.client.model import NO_SHARE, Limits, Share
from job_orchestrator.common.errors import StartupError

logger = logging.getLogger(__name__)

END_TIMEOUT_S = 10.0

FOR_SHARES = frozenset({"cpu", "memory"})
"""Controllers that limit what single payloads have asked for. They are used where there are any."""
_POLL_S = 0.005


@dataclass(frozen=True)
class PayloadCgroup:
    """Cgroup of one payload: one folder, or several if controllers are in several hierarchies."""

    cgroups: tuple[Cgroup, ...]
    limits: Limits

    @property
    def main(self) -> Cgroup:
        """The cgroup by which the payload's processes are found and killed."""
        return self.cgroups[0]

    def add(self, pid: int) -> None:
        """Move a process in. Raises ``OSError``."""
        for cgroup in self.cgroups:
            cgroup.add(pid)

    def limit_reached(self) -> str:
        """Describe for the user which limit was reached; empty if none was."""
        if self.limits == Limits():
            return ""
        texts = (limit_reached(cgroup.folder, self.limits) for cgroup in self.cgroups)
        return next((text for text in texts if text), "")

    def remove_if_empty(self) -> bool:
        """Remove the cgroup; False if processes run there, or if there are cgroups below it."""
        return all([cgroup.remove_if_empty() for cgroup in self.cgroups])

    def remove(self) -> bool:
        """Remove the cgroup; False if processes run there."""
        return all([cgroup.remove() for cgroup in self.cgroups])


class Parent(NamedTuple):
    """A folder that holds the cgroups of payloads, and the controllers that are used there."""

    folder: Path
    hierarchy: Hierarchy
    controllers: frozenset[str]


class PayloadCgroups:
    """Creates one cgroup for each payload.

    ``parents`` holds one folder for each hierarchy, the main one first. ``starter`` starts
    programs directly in a cgroup; None: processes can only be moved there.
    """

    starter: CgroupStarter | None = None

    def __init__(self, parents: Sequence[Parent], limits: Limits) -> None:
        self._parents = tuple(parents)
        self._limits = limits

    def __str__(self) -> str:
        return str(self._parents[0].folder)

    @property
    def controllers(self) -> frozenset[str]:
        """The controllers that are used."""
        return frozenset[str]().union(*(parent.controllers for parent in self._parents))

    def create(self, name: str, share: Share = NO_SHARE) -> PayloadCgroup:
        """Create the cgroup of a payload, and set its limits. Raises ``OSError``.

        They are those of all payloads, and what this one has asked for if that is less.
        """
        limits = self._limits.within(share)
        needed = needed_controllers(limits)
        parents = [
            parent
            for parent in self._parents
            if parent is self._parents[0] or parent.controllers & needed
        ]
        created = PayloadCgroup(
            tuple(Cgroup(parent.folder / name, parent.hierarchy.version) for parent in parents),
            limits,
        )
        try:
            for parent, cgroup in zip(parents, created.cgroups, strict=True):
                cgroup.folder.mkdir()
                set_limits(cgroup.folder, cgroup.version, limits, parent.controllers)
        except OSError:
            created.remove()
            raise
        return created

    def clear(self) -> None:
        """Kill the processes of all payloads, and remove their cgroups. Raises ``StillRunning``."""
        for parent in self._parents:
            _end(Cgroup(parent.folder, parent.hierarchy.version), keep=True)

    def close(self) -> None:
        """Close the starter, and remove all cgroups with their parents."""
        if self.starter is not None:
            self.starter.close()
        for parent in self._parents:
            Cgroup(parent.folder, parent.hierarchy.version).remove()


def open_cgroups(
    settings: ExecutionSettings, folder: Path, candidates: Sequence[Hierarchy] | None = None
) -> PayloadCgroups | None:
    """Prepare cgroups for payloads, as the settings ask; None if they are not used.

    Kills the processes that a previous process of jo-client left in its cgroups, in any hierarchy.
    These cgroups are named after ``folder``, which holds the workspaces. Raises ``StartupError`` if
    the settings require cgroups and they cannot be used.
    """
    name = _name_for(folder)
    required = settings.cgroups == "required" or settings.limits != Limits()
    try:
        hierarchies = visible_hierarchies() if candidates is None else candidates
        for hierarchy in hierarchies:
            for left in hierarchy.find(name):
                _end(Cgroup(left, hierarchy.version), keep=False)
        if settings.cgroups == "off":
            raise CgroupsUnavailable("CGROUPS is off")
        cgroups = _open(hierarchies, name, settings)
    except StillRunning as error:
        raise StartupError(str(error)) from error
    except (CgroupsUnavailable, OSError) as error:
        if required:
            asked = "CGROUPS is 'required'" if settings.limits == Limits() else "A limit is set"
            raise StartupError(
                f"{asked}, but payloads cannot have cgroups here: {error}. Give jo-client a"
                " writable hierarchy of cgroups, or unset MEMORY_LIMIT, PIDS_LIMIT and CPU_LIMIT"
            ) from error
        logger.info("Payloads run without cgroups: %s", error)
        return None
    logger.info("Payloads run in cgroups below %s", cgroups)
    if missing := FOR_SHARES - cgroups.controllers:
        logger.info(
            "Payloads can use more than they have asked for: their cgroups have no %s controller",
            " and no ".join(sorted(missing)),
        )
    return cgroups


def _open(
    hierarchies: Sequence[Hierarchy], name: str, settings: ExecutionSettings
) -> PayloadCgroups:
    """Use the first hierarchy in which processes can be killed.

    Raises ``CgroupsUnavailable``, ``OSError``.
    """
    problem: Exception = CgroupsUnavailable("no hierarchy of version 2, and no freezer, is mounted")
    usable = [each for each in hierarchies if each.version == 2 or "freezer" in each.controllers]
    needed = needed_controllers(settings.limits)
    for main in sorted(usable, key=lambda hierarchy: hierarchy.version, reverse=True):
        for wanted in dict.fromkeys((needed | FOR_SHARES, needed)):
            try:
                return _open_with(main, hierarchies, name, settings, wanted)
            except (CgroupsUnavailable, OSError) as error:
                problem = error
    raise problem


def _open_with(
    main: Hierarchy,
    hierarchies: Sequence[Hierarchy],
    name: str,
    settings: ExecutionSettings,
    needed: frozenset[str],
) -> PayloadCgroups:
    """Choose hierarchies for the controllers, create the parents, and prove that they work."""
    limits = settings.limits
    chosen = {main: needed & main.controllers}
    for controller in sorted(needed - main.controllers):
        hierarchy = next((each for each in hierarchies if controller in each.controllers), None)
        if hierarchy is None:
            raise CgroupsUnavailable(f"no hierarchy has the {controller} controller")
        chosen[hierarchy] = chosen.get(hierarchy, frozenset()) | {controller}
    cgroups = PayloadCgroups(
        [Parent(hierarchy.own / name, hierarchy, used) for hierarchy, used in chosen.items()],
        limits,
    )
    try:
        for hierarchy, controllers in chosen.items():
            parent = hierarchy.own / name
            parent.mkdir(exist_ok=True)
            if hierarchy.version == 2 and controllers:
                delegate(hierarchy, parent, controllers)
        _prove_that_kill_works(cgroups)
        if main.version == 2:
            cgroups.starter = _open_starter(cgroups, of_other_users=bool(settings.run_as))
    except (CgroupsUnavailable, OSError):
        cgroups.close()
        raise
    return cgroups


def _open_starter(cgroups: PayloadCgroups, *, of_other_users: bool) -> CgroupStarter | None:
    probe = cgroups.create("probe")
    try:
        return open_starter(probe.main, of_other_users=of_other_users)
    finally:
        probe.main.kill()
        probe.remove()


def _prove_that_kill_works(cgroups: PayloadCgroups) -> None:
    """Run a process in a cgroup and kill it there. Raises ``CgroupsUnavailable``, ``OSError``."""
    probe = cgroups.create("probe")
    with StartGate() as gate:
        command = gate.wrap(["sleep", "60"])
        process = subprocess.Popen(command, stdin=gate.descriptor)  # noqa: S603
        try:
            probe.add(process.pid)
            probe.main.kill()
            process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            raise CgroupsUnavailable(f"processes in {cgroups} cannot be killed") from error
        finally:
            process.kill()
            process.wait()
            probe.remove()


def _end(cgroup: Cgroup, *, keep: bool) -> None:
    """Kill all processes in a cgroup, and remove the cgroups below it; itself unless ``keep``.

    Raises ``StillRunning``.
    """
    deadline = time.monotonic() + END_TIMEOUT_S
    left = cgroup.pids()
    if left:
        logger.warning("Ending %d processes that belong to no payload any more", len(left))
    while left:
        if time.monotonic() > deadline:
            raise StillRunning(f"Processes in {cgroup.folder} could not be ended: {left[:10]}")
        cgroup.kill()
        time.sleep(_POLL_S)
        left = cgroup.pids()
    cgroup.remove()
    if keep:
        cgroup.folder.mkdir(exist_ok=True)


def _name_for(folder: Path) -> str:
    """Return a name for the cgroups of this client that is unique on the machine.

    The name is not made of the path: two containers may use the same path.
    """
    status = folder.stat()
    return f"jo-client-{status.st_dev:x}-{status.st_ino:x}"
