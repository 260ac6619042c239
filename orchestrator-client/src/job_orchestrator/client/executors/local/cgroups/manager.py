"""The cgroups of all payloads of a client."""

import logging
import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from job_orchestrator.client.errors import NoCgroups, StillRunning
from job_orchestrator.client.executors.local.cgroups import limits as cgroup_limits
from job_orchestrator.client.executors.local.cgroups.group import Group
from job_orchestrator.client.executors.local.cgroups.hierarchy import Tree, delegate, trees
from job_orchestrator.client.executors.local.fork_server.client import ForkServer
from job_orchestrator.client.executors.local.settings import ExecutionSettings
from job_orchestrator.client.executors.local.start_gate import Gate
from job_orchestrator.client.model import Limits
from job_orchestrator.common.errors import StartupError

logger = logging.getLogger(__name__)

END_TIMEOUT_S = 10.0
_STEP_S = 0.005


@dataclass(frozen=True)
class PayloadGroup:
    """The group of one payload: one folder, or more where each controller has its own tree."""

    groups: tuple[Group, ...]
    limits: Limits

    @property
    def main(self) -> Group:
        """The one by which its processes are found."""
        return self.groups[0]

    def add(self, pid: int) -> None:
        """Move a process in. Raises ``OSError``."""
        for group in self.groups:
            group.add(pid)

    def limit_reached(self) -> str:
        """Which limit was met, for the user; empty if none."""
        if self.limits == Limits():
            return ""
        texts = (cgroup_limits.reached(group.folder, self.limits) for group in self.groups)
        return next((text for text in texts if text), "")

    def remove(self) -> bool:
        """Remove it; False if something runs in there."""
        return all([group.remove() for group in self.groups])


class Cgroups:
    """Makes them. ``parents`` are the folders that hold them, the main one first.

    ``fork_server`` starts processes inside them; None: they can only be moved there.
    """

    fork_server: ForkServer | None = None

    def __init__(
        self, parents: Sequence[tuple[Path, Tree, frozenset[str]]], limits: Limits
    ) -> None:
        self._parents = tuple(parents)
        self._limits = limits

    def __str__(self) -> str:
        return str(self._parents[0][0])

    def make(self, name: str) -> PayloadGroup:
        """Make the group of a payload, with its limits. Raises ``OSError``."""
        group = PayloadGroup(
            tuple(Group(parent / name, tree.version) for parent, tree, _ in self._parents),
            self._limits,
        )
        try:
            for (_, _, controllers), one in zip(self._parents, group.groups, strict=True):
                one.folder.mkdir()
                cgroup_limits.impose(one.folder, one.version, self._limits, controllers)
        except OSError:
            group.remove()
            raise
        return group

    def clear(self) -> None:
        """Kill all that is in any of them, and remove them. Raises ``StillRunning``."""
        for parent, tree, _ in self._parents:
            _end(Group(parent, tree.version), keep=True)

    def close(self) -> None:
        """The client ends: remove them with what holds them."""
        if self.fork_server is not None:
            self.fork_server.close()
        for parent, tree, _ in self._parents:
            Group(parent, tree.version).remove()


def open_cgroups(
    settings: ExecutionSettings, folder: Path, candidates: Sequence[Tree] | None = None
) -> Cgroups | None:
    """Find out how cgroups can be used here, and use them if the settings ask for it.

    What an earlier life of the client left in its groups is killed, wherever they are: they are
    named for ``folder``, the one that holds the workspaces. None: there are none to use. Raises
    ``StartupError`` if the settings can't do without.
    """
    name = _name(folder)
    required = settings.cgroups == "required" or settings.limits != Limits()
    try:
        found = trees() if candidates is None else candidates
        for tree in found:
            for left in tree.find(name):
                _end(Group(left, tree.version), keep=False)
        if settings.cgroups == "off":
            raise NoCgroups("CGROUPS is off")
        cgroups = _open(found, name, settings.limits)
    except StillRunning as error:
        raise StartupError(str(error)) from error
    except (NoCgroups, OSError) as error:
        if required:
            what = "CGROUPS is 'required'" if settings.limits == Limits() else "A limit is set"
            raise StartupError(
                f"{what}, and payloads can't have cgroups here: {error}. Give jo-client a writable"
                " tree of cgroups, or take MEMORY_LIMIT, PIDS_LIMIT and CPU_LIMIT away"
            ) from error
        logger.info("Payloads run without cgroups: %s", error)
        return None
    logger.info("Payloads run in cgroups below %s", cgroups)
    return cgroups


def _open(found: Sequence[Tree], name: str, limits: Limits) -> Cgroups:
    """Use the first tree that processes can be killed by. Raises ``NoCgroups``, ``OSError``."""
    problem: Exception = NoCgroups("no tree of version 2, and no freezer, is mounted")
    usable = [tree for tree in found if tree.version == 2 or "freezer" in tree.controllers]
    for main in sorted(usable, key=lambda tree: tree.version, reverse=True):
        try:
            return _open_with(main, found, name, limits)
        except (NoCgroups, OSError) as error:
            problem = error
    raise problem


def _open_with(main: Tree, found: Sequence[Tree], name: str, limits: Limits) -> Cgroups:
    """Choose trees for the limits, make the folders in them, and prove that they work."""
    needed = cgroup_limits.needed(limits)
    chosen = {main: needed & main.controllers}
    for controller in sorted(needed - main.controllers):
        tree = next((tree for tree in found if controller in tree.controllers), None)
        if tree is None:
            raise NoCgroups(f"the {controller} controller is in no tree")
        chosen[tree] = chosen.get(tree, frozenset()) | {controller}
    cgroups = Cgroups([(tree.own / name, tree, used) for tree, used in chosen.items()], limits)
    try:
        for tree, controllers in chosen.items():
            parent = tree.own / name
            parent.mkdir(exist_ok=True)
            if tree.version == 2 and controllers:
                delegate(tree, parent, controllers)
        _prove(cgroups)
        if [tree.version for tree in chosen] == [2]:
            cgroups.fork_server = _open_fork_server(cgroups)
    except (NoCgroups, OSError):
        cgroups.close()
        raise
    return cgroups


def _open_fork_server(cgroups: Cgroups) -> ForkServer | None:
    """Start something in a group; None where that is not possible (kernels before 5.7)."""
    fork_server = ForkServer()
    group = cgroups.make("probe")
    try:
        with Path(os.devnull).open("wb") as nowhere:
            fork_server.start(
                ["/bin/sh", "-c", ":"],
                group=group.main.folder,
                folder=Path("/"),
                environment={},
                stdout=nowhere.fileno(),
                stderr=nowhere.fileno(),
                user=None,
            ).wait()
    except OSError as error:
        logger.info("Scripts are moved into their cgroups, which takes longer: %s", error)
        fork_server.close()
        return None
    finally:
        group.main.kill()
        group.remove()
    return fork_server


def _prove(cgroups: Cgroups) -> None:
    """Run a process in a group and kill it there. Raises ``NoCgroups``, ``OSError``."""
    group = cgroups.make("probe")
    with Gate() as gate:
        command = gate.held(["sleep", "60"])
        process = subprocess.Popen(command, stdin=gate.descriptor)  # noqa: S603
        try:
            group.add(process.pid)
            group.main.kill()
            process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            raise NoCgroups(f"what runs in {cgroups} can't be killed") from error
        finally:
            process.kill()
            process.wait()
            group.remove()


def _end(group: Group, *, keep: bool) -> None:
    """Kill what is in a group, and remove what is below it, and unless ``keep`` also itself."""
    until = time.monotonic() + END_TIMEOUT_S
    left = group.pids()
    if left:
        logger.warning("Ending %d processes that belong to no payload any more", len(left))
    while left:
        if time.monotonic() > until:
            raise StillRunning(f"Processes in {group.folder} resist being ended: {left[:10]}")
        group.kill()
        time.sleep(_STEP_S)
        left = group.pids()
    group.remove()
    if keep:
        group.folder.mkdir(exist_ok=True)


def _name(folder: Path) -> str:
    """A name for the groups of a client that no other one on this machine has.

    Not the path of its folder: in two containers it may be the same.
    """
    status = folder.stat()
    return f"jo-client-{status.st_dev:x}-{status.st_ino:x}"
