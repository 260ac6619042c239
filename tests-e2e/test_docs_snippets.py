"""Code snippets of the user documentation work as printed."""

import asyncio
import os
import re
from pathlib import Path

import pytest

from harness import BIN, Service

ROOT = Path(__file__).parents[1]
PAGES = (
    "README.md",
    "orchestrator-common/README.md",
    "docs/first-job.md",
    "docs/jo.md",
    "docs/portal-developers.md",
    "docs/cookbook.md",
)
NOT_RUN = re.compile(r"<!-- not-run: .+ -->\s*\Z")
SNIPPET = re.compile(r"^```(bash|sh|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def snippets(page: str) -> list[str]:
    """Return the snippets of a page as shell code, in order, without those marked ``not-run``."""
    text = (ROOT / page).read_text()
    return [
        f"python3 - << 'END OF SNIPPET'\n{match[2]}END OF SNIPPET\n"
        if match[1] == "python"
        else match[2]
        for match in SNIPPET.finditer(text)
        if not NOT_RUN.search(text[: match.start()])
    ]


@pytest.mark.parametrize("page", PAGES)
async def test_snippets_of_the_page_work_in_order(
    server: Service, tmp_path: Path, page: str
) -> None:
    found = snippets(page)
    assert found, "the page has no snippet"
    script = "set -euo pipefail\nset -x\n" + "\n".join(found)
    script = script.replace("http://localhost:5000", server.url)
    folder = tmp_path / "page"
    folder.mkdir()
    process = await asyncio.create_subprocess_exec(
        "bash",
        "-c",
        script,
        cwd=folder,
        env={"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(folder), "JO_URL": server.url},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 240)
    assert process.returncode == 0, output.decode()
