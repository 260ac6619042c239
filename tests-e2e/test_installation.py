"""Each distribution installs and starts without the other; and the source keeps its rules."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import job_orchestrator.client
import job_orchestrator.common
import job_orchestrator.server

ROOT = Path(__file__).parents[1]
FACES = (
    "app",
    "keys",
    "openapi",
    "cli",
    "log_query",
    "request_ids",
    "stopping",
    "streaming",
    "metrics",
)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("app", "other"), [("server", "client"), ("client", "server")])
def test_one_app_installs_and_runs_without_the_other(tmp_path: Path, app: str, other: str) -> None:
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True, timeout=60)
    distributions = [ROOT / "orchestrator-common", ROOT / f"orchestrator-{app}"]
    subprocess.run(
        [python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", *distributions],
        check=True,
        timeout=240,
    )
    shown = subprocess.run(
        [python.parent / f"jo-{app}", "--version"], capture_output=True, text=True, check=True
    )
    assert shown.stdout == f"jo-{app}, version 0.1.0\n"
    missing = subprocess.run(
        [python, "-c", f"import job_orchestrator.{other}"], capture_output=True, check=False
    )
    assert missing.returncode == 1
    assert not (python.parent / f"jo-{other}").exists()


def test_three_distributions_have_one_version() -> None:
    versions = {
        module.__version__
        for module in (job_orchestrator.common, job_orchestrator.server, job_orchestrator.client)
    }
    assert len(versions) == 1


def sources() -> list[Path]:
    return sorted(ROOT.glob("orchestrator-*/src/**/*.py"))


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


@pytest.mark.parametrize(
    "path", sources(), ids=lambda path: str(path.relative_to(ROOT)).partition("/src/")[2]
)
def test_module_keeps_to_its_layer(path: Path) -> None:
    imported = imports_of(path)
    at_the_face = path.stem in FACES or path.parent.name == "web" or path.name == "web.py"
    assert at_the_face or "aiohttp.web" not in imported, "HTTP belongs to web/"
    in_a_store = path.parent.name == "store" or path.stem == "payloads"
    assert in_a_store or "aiosqlite" not in imported, "SQL belongs to the stores"
    reads_environment = "os.environ" in path.read_text()
    assert path.stem in ("settings", "env") or not reads_environment
    assert path.stem not in ("utils", "helpers", "common", "manager")
    assert len(path.read_text().splitlines()) <= 400
