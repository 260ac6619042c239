"""The shape of the code: how much depends on how much, and which module may do what."""

import ast
import re
from pathlib import Path

import pytest

from import_graph import DISTRIBUTIONS, ROOT, ImportGraph, import_graph, imported_modules

LIMITS = {
    "orchestrator-common": (12, 25),
    "orchestrator-server": (20, 70),
    "orchestrator-client": (15, 48),
}
"""Nodes and edges that the graph of a distribution may have, counted below its import package."""

MAX_LAYERS = 6
MAX_LINES = 400
MAX_ENTRIES = 14
"""Modules and packages in a folder below the root of a distribution; ten is the aim."""

HTTP_MODULES = ("app", "keys", "cli")
SQL_FOLDERS = ("sqlite", "payloads")
VAGUE_NAMES = ("utils", "helpers", "common", "manager", "misc")


def sources() -> list[Path]:
    return sorted(ROOT.glob("orchestrator-*/src/**/*.py"))


def folders() -> list[Path]:
    roots = {"job_orchestrator", "server", "client", "common"}
    return sorted({path.parent for path in sources() if path.parent.name not in roots})


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT)).partition("/src/")[2]


@pytest.fixture(params=sorted(DISTRIBUTIONS))
def distribution(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def graph(distribution: str) -> ImportGraph:
    return import_graph(distribution, DISTRIBUTIONS[distribution])


def test_graph_of_a_distribution_is_small(distribution: str, graph: ImportGraph) -> None:
    nodes, edges = LIMITS[distribution]

    assert len(graph.nodes) <= nodes, sorted(graph.nodes)
    assert len(graph.edges) <= edges, sorted(graph.edges)


def test_graph_of_a_distribution_has_no_cycle(graph: ImportGraph) -> None:
    assert graph.cycle() == []


def test_layer_contracts_are_few_enough_to_remember() -> None:
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    contracts = re.findall(r"^layers = (\[.*?\])$", text, re.MULTILINE | re.DOTALL)

    assert contracts
    for layers in contracts:
        assert len(ast.literal_eval(layers)) <= MAX_LAYERS


def test_http_is_only_in_web_and_at_the_roots() -> None:
    assert [
        name_of(path)
        for path in sources()
        if "aiohttp.web" in imported_modules(path)
        and path.stem not in HTTP_MODULES
        and not {"web", "cli"} & set(path.parts)
    ] == []


def test_sql_is_only_in_stores() -> None:
    assert [
        name_of(path)
        for path in sources()
        if {"sqlite3", "aiosqlite"} & imported_modules(path)
        and not set(SQL_FOLDERS) & set(path.parts)
        # Fault injection makes statements fail, for tests.
        and path.stem != "fault_injection"
    ] == []


def test_environment_is_read_only_by_settings() -> None:
    assert [
        name_of(path)
        for path in sources()
        if "os.environ" in path.read_text("utf-8")
        and not {"settings", "config"} & {*path.parts, path.stem}
    ] == []


def test_modules_are_named_after_their_concepts() -> None:
    assert [name_of(path) for path in sources() if path.stem in VAGUE_NAMES] == []


def test_modules_fit_on_a_few_screens() -> None:
    lines = {name_of(path): len(path.read_text("utf-8").splitlines()) for path in sources()}

    assert {name: count for name, count in lines.items() if count > MAX_LINES} == {}


def entries(folder: Path) -> list[str]:
    """List the modules and packages in a folder."""
    return sorted(
        entry.name
        for entry in folder.iterdir()
        if (entry.suffix == ".py" and not entry.name.startswith("__"))
        or (entry.is_dir() and any(entry.rglob("*.py")))
    )


def test_folders_hold_few_entries() -> None:
    found = {name_of(folder): entries(folder) for folder in folders()}

    assert {name: names for name, names in found.items() if len(names) > MAX_ENTRIES} == {}
