"""Contents and metadata of the sdists and wheels; versions; installation of each service alone."""

import fnmatch
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from importlib import import_module
from pathlib import Path

import pytest

from job_orchestrator.common import __version__
from set_version import DISTRIBUTIONS, set_version

ROOT = Path(__file__).parents[1]
NO_CACHES = shutil.ignore_patterns("__pycache__", "*.egg-info")

IMPORT_PACKAGES = {"common": ("cli", "common", "sdk"), "server": ("server",), "client": ("client",)}
DATA = {
    "common": (),
    "server": ("*/dashboard/index.html", "*/migrations/0001_*.sql", "*/web/openapi/jobs.yaml"),
    "client": ("*/web/openapi/submit.yaml",),
}
EXTRAS = {"common": ["cli", "service"], "server": ["oidc"], "client": None}
COMMANDS = {
    "common": "jo = job_orchestrator.cli.__main__:main",
    "server": "jo-server = job_orchestrator.server.cli.main:main",
    "client": "jo-client = job_orchestrator.client.cli:main",
}


@pytest.fixture(scope="session", params=DISTRIBUTIONS)
def distribution(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def built(distribution: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a copy of the distribution's folder, without the rest of the repository.

    The wheel is built from the sdist.
    """
    folder = tmp_path_factory.mktemp(distribution)
    source = folder / f"orchestrator-{distribution}"
    shutil.copytree(ROOT / source.name, source, ignore=NO_CACHES)
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", source],
        check=True,
        capture_output=True,
        timeout=120,
    )
    return folder / "dist"


@pytest.fixture(scope="session")
def sdist(built: Path) -> dict[str, bytes]:
    """Contents of the sdist by path, without its top folder."""
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        files = [(member, archive.extractfile(member)) for member in archive.getmembers()]
        return {member.name.partition("/")[2]: file.read() for member, file in files if file}


@pytest.fixture(scope="session")
def wheel(built: Path) -> dict[str, bytes]:
    """Contents of the wheel by path."""
    (path,) = built.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="session")
def metadata(distribution: str, wheel: dict[str, bytes]) -> Message:
    """Core metadata of the wheel."""
    return Parser().parsestr(wheel[f"{_dist_info(distribution)}/METADATA"].decode())


def _dist_info(distribution: str) -> str:
    return f"job_orchestrator_{distribution}-{__version__}.dist-info"


def _source_files(distribution: str) -> dict[str, bytes]:
    source = ROOT / f"orchestrator-{distribution}" / "src"
    return {
        str(path.relative_to(source)): path.read_bytes()
        for path in source.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_wheel_holds_the_import_packages_with_their_data_and_nothing_else(
    distribution: str, wheel: dict[str, bytes]
) -> None:
    code = {name: text for name, text in wheel.items() if not name.startswith("job_orchestrator_")}
    assert code == _source_files(distribution)
    assert {name.split("/")[1] for name in code} == set(IMPORT_PACKAGES[distribution])
    for data in DATA[distribution]:
        assert fnmatch.filter(code, data), data


def test_each_import_package_of_a_wheel_is_typed(
    distribution: str, wheel: dict[str, bytes]
) -> None:
    for package in IMPORT_PACKAGES[distribution]:
        assert f"job_orchestrator/{package}/py.typed" in wheel


def test_import_namespace_belongs_to_no_distribution(wheel: dict[str, bytes]) -> None:
    assert "job_orchestrator/__init__.py" not in wheel


def test_sdist_holds_source_readme_and_license(distribution: str, sdist: dict[str, bytes]) -> None:
    source = {f"src/{name}": text for name, text in _source_files(distribution).items()}
    others = {name for name in sdist if not name.startswith("src/")}
    assert {name: text for name, text in sdist.items() if name.startswith("src/")} == source
    assert others - {".gitignore"} == {"LICENSE", "PKG-INFO", "README.md", "pyproject.toml"}


def test_license_is_that_of_the_repository(
    distribution: str, sdist: dict[str, bytes], wheel: dict[str, bytes]
) -> None:
    text = (ROOT / "LICENSE").read_bytes()
    assert sdist["LICENSE"] == text
    assert wheel[f"{_dist_info(distribution)}/licenses/LICENSE"] == text


def test_metadata_describes_the_distribution(distribution: str, metadata: Message) -> None:
    assert metadata["Name"] == f"job-orchestrator-{distribution}"
    assert metadata["Version"] == __version__
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Author"] == "the job-orchestrator developers"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload() == (ROOT / f"orchestrator-{distribution}/README.md").read_text()
    assert len(metadata["Summary"]) > 40
    assert "job queue" in metadata["Keywords"]
    assert "Typing :: Typed" in metadata.get_all("Classifier", [])
    assert metadata.get_all("Provides-Extra") == EXTRAS[distribution]
    assert metadata["Home-page"] is None
    assert metadata.get_all("Project-URL") is None


def test_command_is_an_entry_point(distribution: str, wheel: dict[str, bytes]) -> None:
    entry_points = wheel[f"{_dist_info(distribution)}/entry_points.txt"].decode()
    assert entry_points.split("\n") == ["[console_scripts]", COMMANDS[distribution], ""]


def test_services_require_common_of_exactly_their_version(
    distribution: str, metadata: Message
) -> None:
    required = [
        requirement
        for requirement in metadata.get_all("Requires-Dist", [])
        if requirement.startswith("job-orchestrator")
    ]
    expected = f"job-orchestrator-common[service]=={__version__}"
    assert required == ([] if distribution == "common" else [expected])


@pytest.mark.parametrize("distribution", DISTRIBUTIONS, indirect=True)
def test_description_is_rendered_without_relative_links(distribution: str) -> None:
    text = (ROOT / f"orchestrator-{distribution}/README.md").read_text()
    assert re.findall(r"\]\((?!https?://)[^)]*\)", text) == []


def test_set_version_changes_every_version_and_requirement(tmp_path: Path) -> None:
    for name in DISTRIBUTIONS:
        folder = f"orchestrator-{name}"
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=NO_CACHES)
    changed = set_version("12.3.4rc5", tmp_path)
    assert len(changed) == len(set(changed)) == 5
    for name in DISTRIBUTIONS:
        for path in (tmp_path / f"orchestrator-{name}").rglob("*"):
            if path.is_file() and path.suffix in (".py", ".toml"):
                assert not re.search(rf'(==|^__version__ = "){__version__}', path.read_text(), re.M)
    assert all("12.3.4rc5" in path.read_text() for path in changed)


@pytest.mark.parametrize("version", ["", "1", "1.2", "v1.2.3", "1.2.3.4", '1.2.3"'])
def test_set_version_refuses_what_is_not_a_version(tmp_path: Path, version: str) -> None:
    with pytest.raises(ValueError, match=r"is not a version; it must be like 1\.2\.0"):
        set_version(version, tmp_path)


def test_three_distributions_have_one_version() -> None:
    versions = {import_module(f"job_orchestrator.{name}").__version__ for name in DISTRIBUTIONS}
    assert versions == {__version__}


@pytest.mark.slow
@pytest.mark.parametrize(("app", "other"), [("server", "client"), ("client", "server")])
def test_one_service_installs_and_runs_without_the_other(
    tmp_path: Path, app: str, other: str
) -> None:
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True, timeout=240)
    log = tmp_path / "pip.log"
    distributions = [ROOT / "orchestrator-common", ROOT / f"orchestrator-{app}"]
    constraints = ROOT / "constraints.txt"
    subprocess.run(
        [python, "-m", "pip", "--log", log, "install", "-q", "-c", constraints, *distributions],
        check=True,
        timeout=240,
    )
    searched = set(re.findall(r"search for versions of ([\w-]+)", log.read_text()))
    assert "aiohttp" in searched
    assert not any(name.startswith("job-orchestrator") for name in searched)
    shown = subprocess.run(
        [python.parent / f"jo-{app}", "--version"], capture_output=True, text=True, check=True
    )
    assert shown.stdout == f"jo-{app}, version {__version__}\n"
    missing = subprocess.run(
        [python, "-c", f"import job_orchestrator.{other}"], capture_output=True, check=False
    )
    assert missing.returncode == 1
    assert not (python.parent / f"jo-{other}").exists()
