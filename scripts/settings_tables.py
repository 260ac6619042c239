"""Writes the tables of settings in README.md and docs/ from the declarations in the code.

    .venv/bin/python scripts/settings_tables.py

A table stands between ``<!-- settings: NAME -->`` and ``<!-- end of settings -->``.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from job_orchestrator.client.settings import SETTINGS as CLIENT_SETTINGS
from job_orchestrator.common.config.settings import Setting
from job_orchestrator.server.settings.server import SETTINGS as SERVER_SETTINGS
from job_orchestrator.server.settings.services import PREFIX, SERVICE_SETTINGS

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "docs/server-configuration.md", "docs/client-configuration.md")
TABLES: dict[str, tuple[str, tuple[Setting[Any], ...]]] = {
    "jo-server": ("", SERVER_SETTINGS),
    "each service of jo-server": (f"{PREFIX}<NAME>_", SERVICE_SETTINGS),
    "jo-client": ("", CLIENT_SETTINGS),
}

_URL = re.compile(r"https?://[^\s;,]+")
_END = "<!-- end of settings -->"
_TABLE = re.compile(rf"<!-- settings: (?P<name>[^>]+) -->\n.*?{_END}", re.DOTALL)


def table(settings: Iterable[Setting[Any]], prefix: str = "") -> str:
    """Render settings as a Markdown table."""
    rows = ["| variable | default | meaning |", "| --- | --- | --- |"]
    for setting in settings:
        text = setting.default_text
        default = f"`{text}`" if isinstance(setting.default, str) else text
        meaning = _URL.sub(r"`\g<0>`", setting.help)
        rows.append(f"| `{prefix}{setting.name}` | {default} | {meaning} |")
    return "\n".join(rows)


def with_tables(page: str) -> str:
    """Return the text of a page with its tables as the code declares them."""

    def replacement(match: re.Match[str]) -> str:
        prefix, settings = TABLES[match["name"]]
        return f"<!-- settings: {match['name']} -->\n\n{table(settings, prefix)}\n\n{_END}"

    return _TABLE.sub(replacement, page)


def main() -> None:
    """Write the pages."""
    for name in PAGES:
        path = ROOT / name
        path.write_text(with_tables(path.read_text()))


if __name__ == "__main__":
    main()
