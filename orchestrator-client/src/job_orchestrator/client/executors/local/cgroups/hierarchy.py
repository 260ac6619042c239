"""Where this process stands in the machine's trees of cgroups.

There is one tree of version 2, or one for each controller of version 1, or both at once ("hybrid":
the controllers are in trees of version 1, and a tree of version 2 has none).
https://docs.kernel.org/admin-guide/cgroup-v2.html, .../cgroup-v1/
"""

import contextlib
import os
from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path

from job_orchestrator.client.errors import NoCgroups


@dataclass(frozen=True)
class Tree:
    """One tree: where it is mounted, this process' own group in it, and what it can control."""

    mount: Path
    own: Path
    version: int
    controllers: frozenset[str]

    def find(self, name: str) -> list[Path]:
        """All groups of this name, wherever they are."""
        return [Path(at) / name for at, names, _ in os.walk(self.mount) if name in names]


def trees(process: Path = Path("/proc/self")) -> list[Tree]:
    """All trees that this process can see, as it is told in ``/proc``. Raises ``OSError``."""
    groups = dict(_own_groups((process / "cgroup").read_text()))
    found: dict[frozenset[str], Tree] = {}
    for line in (process / "mountinfo").read_text().splitlines():
        mounted, _, kind = line.partition(" - ")
        root, mount = (_unescaped(field) for field in mounted.split(" ")[3:5])
        filesystem, _, options = kind.split(" ", 2)
        if filesystem not in ("cgroup", "cgroup2"):
            continue
        version = 2 if filesystem == "cgroup2" else 1
        for names, path in groups.items():
            matches = not names if version == 2 else names and names <= set(options.split(","))
            if names in found or not matches:
                continue
            own = _below(Path(mount), root, path)
            if own is not None:
                controllers = names if version == 1 else _available(own)
                found[names] = Tree(Path(mount), own, version, controllers)
    return list(found.values())


def delegate(tree: Tree, parent: Path, controllers: Set[str]) -> None:
    """Let groups below ``parent``, a child of our own group, have ``controllers``. Version 2 only.

    A group that passes controllers on must hold no processes itself, so this one steps aside into
    a group of its own. Raises ``NoCgroups``, ``OSError``.
    """
    if missing := controllers - tree.controllers:
        raise NoCgroups(f"{tree.own} has no {' and no '.join(sorted(missing))} controller")
    wanted = " ".join(f"+{controller}" for controller in sorted(controllers))
    if not controllers <= set((tree.own / "cgroup.subtree_control").read_text().split()):
        with contextlib.suppress(OSError):  # at the root nobody need step aside
            (tree.own / "cgroup.subtree_control").write_text(wanted)
    if not controllers <= set((tree.own / "cgroup.subtree_control").read_text().split()):
        aside = tree.own / f"{parent.name}.self"
        aside.mkdir(exist_ok=True)
        (aside / "cgroup.procs").write_text(str(os.getpid()))
        try:
            (tree.own / "cgroup.subtree_control").write_text(wanted)
        except OSError as error:
            raise NoCgroups(f"{tree.own} holds other processes beside this one") from error
    (parent / "cgroup.subtree_control").write_text(wanted)


def _own_groups(text: str) -> Iterator[tuple[frozenset[str], str]]:
    """Controllers (none: version 2) and path of each group that a process is in."""
    for line in text.splitlines():
        _, names, path = line.split(":", 2)
        yield frozenset(name for name in names.split(",") if name), path


def _below(mount: Path, root: str, path: str) -> Path | None:
    """Where a group is mounted, if it is in what ``mount`` shows: the tree from ``root`` on."""
    relative = Path(os.path.normpath(path))
    if ".." in path.split("/") or not relative.is_relative_to(root):
        return None
    return mount / relative.relative_to(root)


def _available(own: Path) -> frozenset[str]:
    with contextlib.suppress(OSError):
        return frozenset((own / "cgroup.controllers").read_text().split())
    return frozenset()


def _unescaped(field: str) -> str:
    """mountinfo writes blanks and the like as octal numbers."""
    return field.encode().decode("unicode_escape") if "\\" in field else field
