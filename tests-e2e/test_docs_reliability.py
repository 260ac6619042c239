"""docs/reliability.md names existing tests for every promise."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reliability.md"

ROW = re.compile(r"^\| (?P<number>\d+) \| (?P<promise>.+?) \| (?P<tests>.+) \|$", re.MULTILINE)
TEST = re.compile(r"def (test_trap_(\d\d)(?:_and_(\d\d))?_\w+)")


def _tests() -> dict[str, set[int]]:
    """Return the promise numbers in the name of each test of the repository, by name."""
    folders = [*ROOT.glob("orchestrator-*/tests"), ROOT / "tests-e2e"]
    files = [file for folder in folders for file in folder.rglob("*.py")]
    found = [match for file in files for match in TEST.finditer(file.read_text("utf-8"))]
    return {match[1]: {int(number) for number in match.groups()[1:] if number} for match in found}


def test_every_promise_names_tests_that_exist_and_have_its_number() -> None:
    tests = _tests()
    rows = {int(row["number"]): row["tests"] for row in ROW.finditer(PAGE.read_text("utf-8"))}
    assert rows
    for number, named in rows.items():
        names = re.findall(r"`(\w+)`", named)
        assert names, f"promise {number} names no test"
        for name in names:
            assert number in tests.get(name, set()), f"promise {number} names {name}"


def test_every_number_of_a_test_is_a_promise_of_the_page() -> None:
    rows = {int(row["number"]) for row in ROW.finditer(PAGE.read_text("utf-8"))}
    assert set().union(*_tests().values()) == rows
