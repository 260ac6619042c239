"""Documented settings agree with the code, and links between files of the repository work."""

import re
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from job_orchestrator.client import settings as client
from job_orchestrator.common.config.reader import Option
from job_orchestrator.common.errors import StartupError
from job_orchestrator.server.model import ClientUrls, Service
from job_orchestrator.server.settings import server

ROOT = Path(__file__).parents[1]
SERVICE = {
    "SERVICE_A_UPLOAD_URL": "http://127.0.0.1:9/submit",
    "SERVICE_A_DOWNLOAD_URL": "http://127.0.0.1:9/retrieve",
}
APPS = [
    ("jo-server", "docs/server-configuration.md", server.OPTIONS),
    ("jo-client", "docs/client-configuration.md", client.OPTIONS),
]
Table = dict[str, tuple[str, str]]


def table(page: str, heading: str) -> Table:
    """Return default and meaning by variable from the first table below ``heading``."""
    section = re.split(rf"^#+ {heading}$", (ROOT / page).read_text(), flags=re.MULTILINE)[1]
    section = re.split(r"^#", section, maxsplit=1, flags=re.MULTILINE)[0]
    rows = re.findall(r"^\| `(\S+)` \| (.*?) \| (.*) \|$", section, re.MULTILINE)
    return {name: (default.strip("`"), meaning) for name, default, meaning in rows}


@pytest.mark.parametrize(("heading", "page", "options"), APPS)
def test_tables_of_settings_are_those_of_the_code(
    heading: str, page: str, options: Sequence[Option]
) -> None:
    expected = {option.name: (option.default, option.help) for option in options}
    assert table("README.md", heading) == expected
    assert table(page, "All settings") == expected


@pytest.mark.parametrize(
    ("read", "options"),
    [(server.read_settings, server.OPTIONS), (client.read_settings, client.OPTIONS)],
)
def test_documented_defaults_are_in_effect(
    read: Callable[..., Any], options: Sequence[Option]
) -> None:
    in_words = {"number of CPUs", "none"}
    documented = {
        option.name: option.default for option in options if option.default not in in_words
    }
    assert read({**SERVICE, **documented}, {}) == read(SERVICE, {})


@pytest.mark.parametrize(
    ("page", "heading"),
    [("README.md", "Each service of jo-server"), ("docs/server-configuration.md", "Services")],
)
def test_table_of_service_settings_is_that_of_the_code(page: str, heading: str) -> None:
    documented = {
        name.removeprefix("SERVICE_<NAME>_"): default
        for name, (default, _) in table(page, heading).items()
    }
    urls = {f"{field.name.upper()}_URL" for field in fields(ClientUrls)}
    limits = {
        field.name.upper().removesuffix("_S"): "none" if field.default is None else field.default
        for field in fields(Service)
    }
    del limits["NAME"], limits["CLIENTS"]
    assert documented.keys() == urls | limits.keys()
    assert {name: documented[name] for name in limits} == {k: str(v) for k, v in limits.items()}
    for name in documented:
        with pytest.raises(StartupError, match=rf"SERVICE_A_{name} is 'no'"):
            server.read_settings({**SERVICE, f"SERVICE_A_{name}": "no"}, {})


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "CONTRIBUTING.md",
        *(f"{p.parent.name}/README.md" for p in ROOT.glob("*/README.md")),
    ],
)
def test_links_to_files_of_the_repository_are_not_broken(page: str) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", (ROOT / page).read_text())
    broken = [
        link
        for link in links
        if not link.startswith("http") and not (ROOT / page).parent.joinpath(link).exists()
    ]
    assert not broken


def test_compose_publishes_its_port_on_the_loopback_interface_by_default() -> None:
    composed = yaml.safe_load((ROOT / "compose.yaml").read_text())
    ports = {name: service.get("ports", []) for name, service in composed["services"].items()}
    assert ports == {"server": ["${SERVER_ADDRESS:-127.0.0.1}:5000:5000"], "client": []}
    documented = table("docs/docker.md", "compose.yaml")
    assert documented["SERVER_ADDRESS"][0] == "127.0.0.1"
    used = set(re.findall(r"\$\{(\w+)", (ROOT / "compose.yaml").read_text()))
    assert documented.keys() == used
