"""Finds the machine's hierarchies of cgroups, and the place of this process in each.

A machine has one hierarchy of version 2, or one of version 1 for each controller, or both
("hybrid": the controllers are in hierarchies of version 1, and that of version 2 has none).
https://docs.kernel.org/admin-guide/cgroup-v2.html, .../cgroup-v1/
"""

import contextlib
import os
from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path

from job_orchestrator.client.errors import CgroupsUnavailable


@dataclass(frozen=True)
class Hierarchy:
    """A hierarchy of cgroups: its mount, this process's cgroup in it, and its controllers."""

    mount: Path
    own: Path
    version: int
    controllers: frozenset[str]

    def find(self, name: str) -> list[Path]:
        """Return all cgroups with this name, at any depth."""
        return [Path(folder) / name for folder, names, _ in os.walk(self.mount) if name in names]


def visible_hierarchies(process: Path = Path("/proc/self")) -> list[Hierarchy]:
    """Return the hierarchies that this process can see, read from ``/proc``. Raises ``OSError``."""
    cgroups = dict(_own_cgroups((process / "cgroup").read_text()))
    found: dict[frozenset[str], Hierarchy] = {}
    for line in (process / "mountinfo").read_text().splitlines():
        mounted, _, kind = line.partition(" - ")
        root, mount = (_unescape(field) for field in mounted.split(" ")[3:5])
        filesystem, _, options = kind.split(" ", 2)
        if filesystem not in ("cgroup", "cgroup2"):
            continue
        version = 2 if filesystem == "cgroup2" else 1
        for names, path in cgroups.items():
            matches = not names if version == 2 else names and names <= set(options.split(","))
            if names in found or not matches:
                continue
            own = _mounted_path(Path(mount), root, path)
            if own is not None:
                controllers = names if version == 1 else _available_controllers(own)
                found[names] = Hierarchy(Path(mount), own, version, controllers)
    return list(found.values())


def delegate(hierarchy: Hierarchy, parent: Path, controllers: Set[str]) -> None:
    """Enable ``controllers`` for the cgroups below ``parent``, a child of our own cgroup.

    For version 2 only. There a cgroup that passes controllers on must not hold processes, so this
    process moves to a child cgroup. Raises ``CgroupsUnavailable``, ``OSError``.
    """
    if missing := controllers - hierarchy.controllers:
        names = " and no ".join(sorted(missing))
        raise CgroupsUnavailable(f"{hierarchy.own} has no {names} controller")
    wanted = " ".join(f"+{controller}" for controller in sorted(controllers))
    enabled = hierarchy.own / "cgroup.subtree_control"
    if not controllers <= set(enabled.read_text().split()):
        # The root cgroup may hold processes and pass controllers on.
        with contextlib.suppress(OSError):
            enabled.write_text(wanted)
    if not controllers <= set(enabled.read_text().split()):
        own_child = hierarchy.own / f"{parent.name}.self"
        own_child.mkdir(exist_ok=True)
        (own_child / "cgroup.procs").write_text(str(os.getpid()))
        try:
            enabled.write_text(wanted)
        except OSError as error:
            raise CgroupsUnavailable(
                f"{hierarchy.own} holds processes other than jo-client"
            ) from error
    (parent / "cgroup.subtree_control").write_text(wanted)


def _own_cgroups(text: str) -> Iterator[tuple[frozenset[str], str]]:
    """Yield controllers (none: version 2) and path of each cgroup that a process is in."""
    for line in text.splitlines():
        _, names, path = line.split(":", 2)
        yield frozenset(name for name in names.split(",") if name), path


def _mounted_path(mount: Path, root: str, path: str) -> Path | None:
    """Return the folder of a cgroup; None if the mount, which begins at ``root``, lacks it."""
    relative = Path(os.path.normpath(path))
    if ".." in path.split("/") or not relative.is_relative_to(root):
        return None
    return mount / relative.relative_to(root)


def _available_controllers(own: Path) -> frozenset[str]:
    with contextlib.suppress(OSError):
        return frozenset((own / "cgroup.controllers").read_text().split())
    return frozenset()


def _unescape(field: str) -> str:
    """Decode the octal numbers that mountinfo writes for blanks and backslashes."""
    return field.encode().decode("unicode_escape") if "\\" in field else field
