"""Decision records (docs/adr/) are numbered without gaps, and the index lists all of them."""

import re
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "docs" / "adr"
ROW = re.compile(r"^\| (\d{4}) \| \[.+\]\((.+)\) \|$", re.MULTILINE)


def test_decisions_are_numbered_without_a_gap_and_all_in_the_index() -> None:
    files = sorted(path.name for path in FOLDER.glob("[0-9]*.md"))
    for number, name in enumerate(files, start=1):
        assert name.startswith(f"{number:04}-")
        assert (FOLDER / name).read_text("utf-8").startswith(f"# {number}. ")
    assert ROW.findall((FOLDER / "index.md").read_text("utf-8")) == [(n[:4], n) for n in files]
