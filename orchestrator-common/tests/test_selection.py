"""Selection of results by the form fields ``outputs`` and ``results``."""

import time

import pytest

from job_orchestrator.common.errors import BadRequest
from job_orchestrator.common.protocol.selection import (
    EVERYTHING,
    MAX_PATTERN_LENGTH,
    MAX_PATTERNS,
    Patterns,
    ResultKind,
    Selection,
    read_selection,
)


@pytest.mark.parametrize(
    ("pattern", "path", "selected"),
    [
        ("*.csv", "a.csv", True),
        ("*.csv", "sub/a.csv", False),
        ("**/*.csv", "a.csv", True),
        ("**/*.csv", "x/y/a.csv", True),
        ("results/*.csv", "results/a.csv", True),
        ("results/*.csv", "results/deep/a.csv", False),
        ("results/**/a.csv", "results/a.csv", True),
        ("results/**/a.csv", "results/x/y/a.csv", True),
        ("results", "results/x/y/a.csv", True),
        ("results", "results2/a.csv", False),
        ("out?", "out1", True),
        ("out?", "out12", False),
        ("out[0-9]", "out7", True),
        ("out[!0-9]", "out7", False),
        ("**", "any/thing", True),
        ("*", ".hidden", True),
        ("A.csv", "a.csv", False),
        ("[[]", "[", True),
        ("x[]a]", "x]", True),
        ("[!]]", "a", True),
        ("a", "a/", True),
        ("**/**/z", "x/z", True),
        ("分*", "分子.pdb", True),
    ],
)
def test_pattern_selects_the_paths_that_it_names(pattern: str, path: str, selected: bool) -> None:
    assert Patterns(read_selection({"outputs": [pattern]}).outputs).match(path) is selected


def test_without_patterns_every_path_is_selected() -> None:
    assert Patterns([]).match("x/y")


def test_each_pattern_selects_independently() -> None:
    patterns = Patterns(["*.log", "data/*"])
    assert patterns.match("a.log")
    assert patterns.match("data/b")
    assert not patterns.match("c")


def test_pattern_of_many_stars_is_matched_in_bounded_time() -> None:
    """A naive expression would need longer than the universe exists."""
    began = time.perf_counter()
    assert not Patterns(["*a" * 100 + "b"]).match("a" * 250 + "c")
    assert not Patterns(["**/a/" * 50 + "b"]).match("a/" * 1000 + "c")
    assert time.perf_counter() - began < 20


def test_fields_are_read_and_written_the_same() -> None:
    selection = read_selection({"outputs": ["*.csv", " ./out/ "], "results": ["new"]})
    assert selection == Selection(("*.csv", "out"), ResultKind.NEW)
    fields: dict[str, list[str]] = {}
    for name, value in selection.fields():
        fields.setdefault(name, []).append(value)
    assert read_selection(fields) == selection


def test_form_without_the_fields_selects_everything_and_sends_no_field() -> None:
    assert read_selection({"results": [""]}) == EVERYTHING
    assert read_selection({}) == EVERYTHING
    assert EVERYTHING.fields() == []


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("", "it is empty"),
        ("  ", "it is empty"),
        ("out/[ab", r"a '\[' has no '\]'"),
        ("[]", r"a '\[' has no '\]'"),
        ("[!]/x", r"a '\[' has no '\]'"),
        ("/etc/passwd", "it is absolute"),
        ("../x", "it has an empty or '..' component"),
        ("a//b", "it has an empty or '..' component"),
        (".", "it has an empty or '..' component"),
        ("a\nb", "it holds a control character"),
        ("x" * (MAX_PATTERN_LENGTH + 1), "longer than 300 characters"),
    ],
)
def test_pattern_that_can_select_nothing_is_refused_with_the_reason(
    pattern: str, reason: str
) -> None:
    with pytest.raises(BadRequest, match=reason):
        read_selection({"outputs": [pattern]})


def test_too_many_patterns_are_refused() -> None:
    with pytest.raises(BadRequest, match="at most 50 patterns"):
        read_selection({"outputs": [f"x{number}" for number in range(MAX_PATTERNS + 1)]})


def test_unknown_kind_of_results_is_refused() -> None:
    with pytest.raises(BadRequest, match="Invalid results, should be all or new"):
        read_selection({"results": ["some"]})


def test_several_stars_for_folders_in_a_row_are_one() -> None:
    assert read_selection({"outputs": ["**/" * 90 + "x"]}).outputs == ("**/x",)


def test_pattern_with_too_many_components_is_refused() -> None:
    with pytest.raises(BadRequest, match="more than 20 components"):
        read_selection({"outputs": ["**/*/" * 11 + "x"]})
