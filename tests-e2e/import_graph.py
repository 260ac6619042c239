"""The import graph of a distribution, at the level of its root.

Nodes are the packages and modules directly below the import package of a distribution
(``job_orchestrator.server.web``); an edge is an import between two of them. Imports for type
checking count as well: a reader of the code depends on them, too.
"""

import ast
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
NAMESPACE = "job_orchestrator"
DISTRIBUTIONS = {
    "orchestrator-common": ("common", "sdk", "cli"),
    "orchestrator-server": ("server",),
    "orchestrator-client": ("client",),
}
"""Import packages below the namespace, by the folder of their distribution."""


@dataclass(frozen=True)
class ImportGraph:
    """Nodes, and the edges between them with the modules that make them."""

    nodes: frozenset[str]
    edges: dict[tuple[str, str], frozenset[str]]

    def cycle(self) -> list[str]:
        """Find a cycle: its nodes in order, or an empty list."""
        following: dict[str, set[str]] = defaultdict(set)
        for source, target in self.edges:
            following[source].add(target)
        done: set[str] = set()

        def visit(node: str, path: list[str]) -> list[str]:
            if node in path:
                return [*path[path.index(node) :], node]
            if node in done:
                return []
            for successor in sorted(following[node]):
                if found := visit(successor, [*path, node]):
                    return found
            done.add(node)
            return []

        for node in sorted(self.nodes):
            if found := visit(node, []):
                return found
        return []


def import_graph(distribution: str, packages: tuple[str, ...]) -> ImportGraph:
    """Read the graph of the import packages ``packages`` of the folder ``distribution``.

    Several packages are one graph: the first gives its children as nodes, the others are nodes
    themselves. A child is a package or a module, without ``__init__`` and ``__main__``.
    """
    base = ROOT / distribution / "src" / NAMESPACE
    nodes: set[str] = set()
    edges: dict[tuple[str, str], set[str]] = defaultdict(set)
    for package in packages:
        for path in sorted((base / package).rglob("*.py")):
            source = _node(path.relative_to(base).with_suffix("").parts, packages)
            if source is None:
                continue
            nodes.add(source)
            for name in imported_modules(path):
                parts = tuple(name.split("."))
                if parts[0] != NAMESPACE or len(parts) < 2 or parts[1] not in packages:
                    continue
                target = _node(parts[1:], packages)
                if target is not None and target != source:
                    edges[source, target].add(str(path.relative_to(base)))
    return ImportGraph(
        frozenset(nodes), {edge: frozenset(modules) for edge, modules in edges.items()}
    )


def imported_modules(path: Path) -> set[str]:
    """Names that the module at ``path`` imports, with ``module.name`` for ``from`` imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def _node(parts: tuple[str, ...], packages: tuple[str, ...]) -> str | None:
    """Name the node of the module with these parts below the namespace, if it is one."""
    if parts[0] != packages[0]:
        return parts[0]
    if len(parts) < 2 or parts[1].startswith("__"):
        return None
    return parts[1]


def main() -> None:
    """Print the graph of each distribution."""
    for distribution, packages in DISTRIBUTIONS.items():
        graph = import_graph(distribution, packages)
        print(f"{distribution}: {len(graph.nodes)} nodes, {len(graph.edges)} edges")  # noqa: T201
        for (source, target), modules in sorted(graph.edges.items()):
            print(f"  {source} -> {target}: {', '.join(sorted(modules))}")  # noqa: T201


if __name__ == "__main__":
    main()
