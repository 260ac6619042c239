"""Tables of settings in the documentation, and links of the repository."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from job_orchestrator.client import settings as client
from job_orchestrator.common.config.settings import Setting
from job_orchestrator.common.errors import StartupError
from job_orchestrator.server.settings import server
from job_orchestrator.server.settings.services import SERVICE_SETTINGS
from settings_tables import PAGES, TABLES, with_tables

ROOT = Path(__file__).parents[1]
SERVICE = {
    "SERVICE_A_UPLOAD_URL": "http://127.0.0.1:9/submit",
    "SERVICE_A_DOWNLOAD_URL": "http://127.0.0.1:9/retrieve",
}


@pytest.mark.parametrize("page", PAGES)
def test_tables_of_settings_are_those_of_the_code(page: str) -> None:
    text = (ROOT / page).read_text()
    assert with_tables(text) == text, "write them with: make settings-tables"


@pytest.mark.parametrize("name", TABLES)
def test_each_table_is_in_the_readme_and_in_a_page_of_the_documentation(name: str) -> None:
    marker = f"<!-- settings: {name} -->\n"
    readme, *pages = ((ROOT / page).read_text() for page in PAGES)
    assert readme.count(marker) == 1
    assert sum(page.count(marker) for page in pages) == 1


@pytest.mark.parametrize("setting", SERVICE_SETTINGS, ids=lambda setting: setting.name)
def test_setting_of_a_service_is_read_and_checked(setting: Setting[Any]) -> None:
    with pytest.raises(StartupError, match=rf"SERVICE_A_{setting.name} is 'no'"):
        server.read_settings({**SERVICE, f"SERVICE_A_{setting.name}": "no"}, {})


def test_default_written_out_has_no_effect() -> None:
    def written_out(settings: tuple[Setting[Any], ...], prefix: str = "") -> dict[str, str]:
        return {
            f"{prefix}{setting.name}": setting.default
            for setting in settings
            if isinstance(setting.default, str)
        }

    everything = {
        **SERVICE,
        **written_out(server.SETTINGS),
        **written_out(SERVICE_SETTINGS, "SERVICE_A_"),
    }
    assert server.read_settings(everything, {}) == server.read_settings(SERVICE, {})
    written = client.read_settings(written_out(client.SETTINGS), {})
    assert written == client.read_settings({}, {})


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "CONTRIBUTING.md",
        *(f"{p.parent.name}/README.md" for p in ROOT.glob("*/README.md")),
    ],
)
def test_links_to_files_of_the_repository_are_valid(page: str) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", (ROOT / page).read_text())
    broken = [
        link
        for link in links
        if not link.startswith("http") and not (ROOT / page).parent.joinpath(link).exists()
    ]
    assert not broken


def test_port_of_compose_is_open_to_this_machine_only_by_default() -> None:
    composed = yaml.safe_load((ROOT / "compose.yaml").read_text())
    ports = {name: service.get("ports", []) for name, service in composed["services"].items()}
    assert ports == {"server": ["${SERVER_ADDRESS:-127.0.0.1}:5000:5000"], "client": []}
    documented = _table("docs/docker.md", "compose.yaml")
    assert documented["SERVER_ADDRESS"] == "127.0.0.1"
    used = set(re.findall(r"\$\{(\w+)", (ROOT / "compose.yaml").read_text()))
    assert documented.keys() == used


def _table(page: str, heading: str) -> dict[str, str]:
    """Read the first table below a heading: the default of each variable."""
    section = re.split(rf"^#+ {heading}$", (ROOT / page).read_text(), flags=re.MULTILINE)[1]
    section = re.split(r"^#", section, maxsplit=1, flags=re.MULTILINE)[0]
    rows = re.findall(r"^\| `(\S+)` \| (.*?) \| .* \|$", section, re.MULTILINE)
    return {name: default.strip("`") for name, default in rows}


def test_make_targets_in_documents_exist() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    rules = set(re.findall(r"^([a-z0-9-]+):", makefile, re.MULTILINE))
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    named = {
        target
        for page in pages
        for text in re.findall(r"(?:^|`)make ([a-z0-9 -]+)", page.read_text("utf-8"), re.MULTILINE)
        for target in text.split()[:1]
    }

    assert named <= rules
    assert set(re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[0].split()) <= rules
